"""The door for HTTP: ``bgx serve``. Needs the extra ``serve``."""
