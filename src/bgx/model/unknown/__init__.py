"""Networks that are not in the registry: what their files show, and how they are run.

::

    look       the graph, without running it; scaling finds the values that its input takes
        │
    describe   the settings for a file; where the graph does not tell, it is run with drawn scenes
        │
        ├─ forms   which output is the matte, and what its values mean
        │
    adapt      a copy with the usual form, if the file has another

:mod:`bgx.model.unknown.facts` has what is found, and is kept with the networks.
"""
