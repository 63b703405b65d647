"""Every bound of the wire, with its reason. SPEC.md section 8 lists the same.

A limit is checked before anything is allocated or believed because of the value
it bounds. Both sides use these numbers; a server may announce smaller ones.
"""

from __future__ import annotations

from typing import Final

MAX_FRAMES: Final = 256
"""Frames of one message: a 64 MiB transfer in 1 MiB chunks needs 65."""

MAX_FRAME_NBYTES: Final = 16 << 20
"""One frame. Chunks are 1 MiB; one huge frame is the slowest way to move bytes."""

MAX_BODY_NBYTES: Final = 8 << 20
"""Header and records of one message, without payload frames."""

MAX_MESSAGE_NBYTES: Final = 96 << 20
"""All frames of one message."""

BATCH_NBYTES: Final = 64 << 10
"""A batch is sent at this size even if the I/O thread has not come round."""

INLINE_NBYTES: Final = 64 << 10
"""Bytes up to this travel inside a record, longer ones as payload frames."""

CHUNK_NBYTES: Final = 1 << 20
"""Size of the chunks in which large payloads travel."""

TRANSFER_NBYTES: Final = 16 << 20
"""Largest range that one WRITE or READ record moves; longer ones are split."""

LANE_NBYTES: Final = 1 << 20
"""From this size on a client moves bytes over the bulk lane, if there is one."""

MAX_UPLOADS: Final = 1_024
"""Uploads whose bytes are still under way; a server executes no further one before."""

MAX_KNOWN: Final = 1_024
"""Contents of earlier uploads that a server offers a session."""

WINDOW_NBYTES: Final = 64 << 20
"""Default credit: bytes of batches that may be unacknowledged."""

MIN_WINDOW_NBYTES: Final = 2 * TRANSFER_NBYTES
"""A smaller window could not hold one full batch and would never let it go."""

MAX_STORAGE_ID: Final = (1 << 62) - 1
MAX_STORAGE_NBYTES: Final = 1 << 46
"""64 TiB: above any device, and a sum of a million of them still fits 64 bits + 2."""

MAX_DIMS: Final = 64
"""torch's own limit on a tensor's dimensions."""

MAX_EXTENT: Final = 1 << 46
"""Largest size or stride of one dimension, and largest storage offset, in elements."""

MAX_ITEMS: Final = 1 << 62
"""Product of a tensor's sizes, an empty dimension counting as one: what a framework
multiplies out of them must fit a signed 64-bit number."""

MAX_ARGUMENTS: Final = 64
"""Arguments of one operation; the widest ATen schema has 33."""

MAX_OUTPUTS: Final = 65_536
"""New results of one call; ``_foreach_*`` returns one per parameter of a model."""

MAX_LIST: Final = 65_536
"""Items of one list argument, for the same reason."""

MAX_DEPTH: Final = 4
"""Lists within lists; no ATen schema nests deeper than two."""

MAX_ARRAY_DEPTH: Final = 8
"""Values within values among arguments of an array operation: ``block`` nests lists."""

MAX_READ_AHEAD: Final = 256
"""Small arrays whose items one ``xpool.get`` brings beside those that it is for."""

MAX_READ_AHEAD_NBYTES: Final = 64
"""Of each of them."""

MAX_ARRAY_RESULTS: Final = 64
"""Results of an array operation that a client has predicted."""

FIRST_ARRAY_DTYPE: Final = 128
"""Code of the first dtype that a client describes; those below are built in."""

MAX_ARRAY_DTYPES: Final = 1024
"""Dtypes that a session describes."""

MAX_DTYPE_FIELDS: Final = 1024
"""Fields of a described dtype, those within others included."""

MAX_SESSION_FIELDS: Final = 32_768
"""Fields of all that a session describes: each is an object of the server's."""

MAX_DTYPE_DEPTH: Final = 8
"""Dtypes within dtypes."""

MAX_DTYPE_NBYTES: Final = 1 << 30
"""An item of a described dtype; NumPy's own limit is twice this."""

MAX_BIG_INT_NBYTES: Final = 64
"""An integer argument beyond 64 bits; no dtype holds more than 8 bytes of it, and seeds
are cut to as many."""

MAX_STRING_NBYTES: Final = 64 << 10
MAX_NAME_NBYTES: Final = 256
MAX_HOST_TENSOR_NBYTES: Final = 4 << 20
"""A host tensor passed by value (an index, a scalar). Larger ones are uploaded."""

MAX_OPERATIONS: Final = 8_192
"""Distinct operations a session may define; ATen has about 3,100 overloads."""

MAX_GENERATORS: Final = 1_024
MAX_GENERATOR_STATE_NBYTES: Final = 16 << 10
MAX_RESERVED_IDS: Final = 65_536
"""Storage ids a call whose results are not known in advance takes up."""

MAX_GRAPHS: Final = 4_096
"""Graphs alive in a session: a compiled program has one per region and shape."""

MAX_GRAPH_RECORDS: Final = 65_536
"""Records of one graph; a training step of a large model has some ten thousand."""

MAX_GRAPH_STORAGES: Final = 65_536
"""Storages that one graph names, parameters and results included."""

MAX_GRAPH_NBYTES: Final = 4 << 20
"""Records of one graph as bytes: with its head it fits one message's body."""

MAX_GRAPHS_NBYTES: Final = 64 << 20
"""Records of all graphs of a session: they lie in the server's own memory, which the
quota does not count."""

MAX_PLANS: Final = 8
"""Automatic plans alive in a session."""

MAX_PLAN_RECORDS: Final = 16_384
"""Records of one plan: an iteration of a large model."""

MAX_PLAN_NBYTES: Final = 1 << 20
"""Records of one plan as bytes."""

MAX_PLAN_VARIABLES: Final = 131_072
"""Variables of one plan, and places where they stand."""

MAX_PLAN_LAYOUT_NBYTES: Final = 4 << 20
"""Variables and places as bytes: with the records it fits one message's body."""

MAX_PLAN_VALUES_NBYTES: Final = 2 << 20
"""Values of one run: a record whose values take more than it does is sent itself."""

MAX_EXPANDED_NBYTES: Final = 8 << 20
"""What the runs in one batch stand for: as much as a body could hold."""

MAX_PEERS: Final = 64
"""Other devices of a job, as the registry bounds them."""

MAX_GROUPS: Final = 256
"""Process groups that a session is in at once."""

MAX_RANKS: Final = 4_096
"""Members of one group."""

MAX_TAG: Final = 2_147_483_647
"""Of send and recv: a signed 32-bit number for every library beneath."""

MAX_GROUP_TIMEOUT_MS: Final = 86_400_000
"""A day: longer than any collective should wait."""

MAX_MODULES: Final = 4_096
"""Modules of kernels alive in a session: Triton makes one per specialization."""

MAX_KERNEL_CODE_NBYTES: Final = 4 << 20
"""Source or image of one module: with its head it fits one message's body."""

MAX_MODULES_NBYTES: Final = 256 << 20
"""Code of all modules of a session: the quota does not count it."""

MAX_KERNEL_TEXTS: Final = 1_024
"""Options, and name expressions, of one module."""

MAX_KERNEL_NAME_NBYTES: Final = 4 << 10
"""A kernel's name: C++ instances have long ones."""

MAX_KERNEL_ARGUMENTS: Final = 1_024
"""Arguments of one launch."""

MAX_KERNEL_ARGUMENT_NBYTES: Final = 32_764
"""One argument by value: what CUDA takes for all of them."""

MAX_KERNEL_EXTENT: Final = 2_147_483_647
"""Blocks, threads, bytes of shared memory: signed 32-bit numbers for CUDA."""

MAX_PROPERTIES: Final = 256
"""Entries of ``Welcome.properties``; torch's device properties are about 20."""

MAX_LACKING: Final = 1_024
"""Entries of ``Welcome.lacking``; a CPU server lacks about 125."""

MAX_TOKEN_NBYTES: Final = 4 << 10
MAX_TEXT_NBYTES: Final = 16 << 10
"""Any text for people: an error, an agent name, a reason."""
