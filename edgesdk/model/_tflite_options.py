"""The options of TFLite's operators: which table holds which field, by number in its schema.

Each line below is one kind of options: its number, its name, then its fields in order as
``name:kind`` or ``name:kind=default``; ``-`` skips a field that is no longer used. Kinds are
``int``, ``bool``, ``float``, ``text``, ``ints`` (a vector), and those with names for numbers:
``padding``, ``activation``, ``type`` and the few in ``_NAMES``. An operator whose options are
of another kind than these (StableHLO's) reads as one without options.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgesdk.model._flatbuffer import FlatbufferError, Table
from edgesdk.model._tflite_names import TENSOR_TYPES

__all__ = ["OptionValue", "read_options"]

OptionValue = int | float | bool | str | tuple[int, ...] | tuple[float, ...]

_TABLES = """
1 Conv2D padding:padding stride_w:int stride_h:int activation:activation dilation_w:int=1 dilation_h:int=1
2 DepthwiseConv2D padding:padding stride_w:int stride_h:int depth_multiplier:int activation:activation dilation_w:int=1 dilation_h:int=1
3 ConcatEmbeddings num_channels:int columns_per_channel:ints embedding_dim_per_channel:ints
4 LSHProjection projection:projection
5 Pool2D padding:padding stride_w:int stride_h:int filter_w:int filter_h:int activation:activation
6 SVDF rank:int activation:activation asymmetric_quantize_inputs:bool
7 RNN activation:activation asymmetric_quantize_inputs:bool
8 FullyConnected activation:activation weights_format:weights_format keep_num_dims:bool asymmetric_quantize_inputs:bool
9 Softmax beta:float
10 Concatenation axis:int activation:activation
11 Add activation:activation pot_scale_int16:bool=1
12 L2Norm activation:activation
13 LocalResponseNormalization radius:int bias:float alpha:float beta:float
14 LSTM activation:activation cell_clip:float proj_clip:float kernel_type:kernel_type asymmetric_quantize_inputs:bool
15 ResizeBilinear - - align_corners:bool half_pixel_centers:bool
16 Call subgraph:int
17 Reshape new_shape:ints
18 SkipGram ngram_size:int max_skip_size:int include_all_ngrams:bool
19 SpaceToDepth block_size:int
20 EmbeddingLookupSparse combiner:combiner
21 Mul activation:activation
23 Gather axis:int batch_dims:int
27 Reducer keep_dims:bool
28 Sub activation:activation pot_scale_int16:bool=1
29 Div activation:activation
30 Squeeze squeeze_dims:ints
31 SequenceRNN time_major:bool activation:activation asymmetric_quantize_inputs:bool
32 StridedSlice begin_mask:int end_mask:int ellipsis_mask:int new_axis_mask:int shrink_axis_mask:int offset:bool
35 Split num_splits:int
37 Cast in_type:type out_type:type
40 ArgMax output_type:type
49 TransposeConv padding:padding stride_w:int stride_h:int activation:activation
50 SparseToDense validate_indices:bool
55 Shape out_type:type
57 ArgMin output_type:type
58 FakeQuant min:float max:float num_bits:int narrow_range:bool
59 Pack values_count:int axis:int
61 OneHot axis:int
64 Unpack num:int axis:int
69 BidirectionalSequenceLSTM activation:activation cell_clip:float proj_clip:float merge_outputs:bool time_major:bool=1 asymmetric_quantize_inputs:bool
70 BidirectionalSequenceRNN time_major:bool activation:activation merge_outputs:bool asymmetric_quantize_inputs:bool
71 UnidirectionalSequenceLSTM activation:activation cell_clip:float proj_clip:float time_major:bool asymmetric_quantize_inputs:bool diagonal_recurrent_tensors:bool
74 ResizeNearestNeighbor align_corners:bool half_pixel_centers:bool
75 LeakyRelu alpha:float
77 MirrorPad mode:mirror
79 SplitV num_splits:int
80 Unique idx_out_type:type=2
87 ReverseSequence seq_dim:int batch_dim:int
92 If then_subgraph:int else_subgraph:int
93 While cond_subgraph:int body_subgraph:int
94 DepthToSpace block_size:int
101 BatchMatMul adj_x:bool adj_y:bool asymmetric_quantize_inputs:bool
102 Cumsum exclusive:bool reverse:bool
103 CallOnce init_subgraph:int
106 Conv3D padding:padding stride_d:int stride_w:int stride_h:int activation:activation dilation_d:int=1 dilation_w:int=1 dilation_h:int=1
107 Hashtable table_id:int key_type:type value_type:type
111 VarHandle container:text shared_name:text
115 Bucketize boundaries:floats
116 Gelu approximate:bool
"""  # noqa: E501  (one kind of options a line, as the docstring says)

_NAMES: Mapping[str, tuple[str, ...]] = {
    "padding": ("SAME", "VALID"),
    "activation": ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT"),
    "weights_format": ("DEFAULT", "SHUFFLED4x16INT8"),
    "kernel_type": ("FULL", "BASIC"),
    "combiner": ("SUM", "MEAN", "SQRTN"),
    "mirror": ("REFLECT", "SYMMETRIC"),
    "projection": ("UNKNOWN", "SPARSE", "DENSE"),
}


def _parsed() -> dict[int, tuple[str, tuple[tuple[int, str, str, int], ...]]]:
    """Give, by number, the name and the fields: position, name, kind, default."""
    kinds = {}
    for line in _TABLES.strip().splitlines():
        number, name, *fields = line.split()
        entries = []
        for position, field in enumerate(fields):
            if field != "-":
                key, _, rest = field.partition(":")
                kind, _, default = rest.partition("=")
                entries.append((position, key, kind, int(default or 0)))
        kinds[int(number)] = (name, tuple(entries))
    return kinds


_KINDS = _parsed()


def read_options(kind: int, table: Table | None) -> dict[str, OptionValue]:
    """Read an operator's options, of the kind that the file states.

    Raises:
        FlatbufferError: A field leaves the file, or a name's number is unknown.
    """
    if table is None or kind not in _KINDS:
        return {}
    name, fields = _KINDS[kind]
    return {
        key: _value(table, position, value_kind, default, f"{name}'s {key}")
        for position, key, value_kind, default in fields
    }


def _value(table: Table, position: int, kind: str, default: int, what: str) -> OptionValue:
    value: OptionValue
    if kind == "ints":
        value = table.numbers(position, "i") or ()
    elif kind == "floats":
        value = table.floats(position) or ()
    elif kind == "text":
        value = table.text(position)[:200]
    elif kind == "float":
        value = table.real(position)
    elif kind == "bool":
        value = bool(table.number(position, "B", default))
    elif kind == "int":
        value = table.number(position, "i", default)
    else:
        value = _named(kind, table.number(position, "b", default), what)
    return value


def _named(kind: str, number: int, what: str) -> str:
    names = _NAMES.get(kind)
    if names is not None and 0 <= number < len(names):
        return names[number]
    if kind == "type" and number in TENSOR_TYPES:
        return TENSOR_TYPES[number][0]
    raise FlatbufferError(f"{what} is number {number}, which is unknown here")
