"""Operations on one picture, without the network: decode, make the tensor, matte, compose, encode.

``read`` decodes a file with one of the ``readers`` into a ``Photo``; ``tensor`` makes the network's
input of it; ``matte``, ``inside``, ``clean``, ``refine``, ``parts``, ``edge`` and ``foreground``
turn the network's output into the subject's alpha and colours; ``finish`` makes the finished
picture with ``canvas``, ``backdrop``, ``shadow`` and ``compose``; ``encode`` makes a file of it.
"""
