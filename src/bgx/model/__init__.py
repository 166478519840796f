"""Networks: from a name of the registry to a session that turns tensors into mattes.

::

    registry    the known networks, from models.toml
    store       their files on this machine; fetch downloads one, digests checks it
    unknown     the settings for a file that is not in the registry
    prepared    the prepared copy of a file: made by prepare, rewrite and winograd, checked by
                trial, saved by mapped
    optimize    8-bit and half-precision copies, made on request
    opening     chooses the copy and the device; engines plans, providers starts the runtime
    session     runs batches; arena is its memory, binding and openvino adapt it to devices
    hardware    describes the machine that a copy was made for
"""
