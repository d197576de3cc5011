"""Which operators of a SavedModel reach out of its graph, told by their names."""

from __future__ import annotations

import pytest

from edgesdk.importers.frameworks.saved_model import (
    pick_signature,
    why_not_computed,
    why_outward,
)
from edgesdk.importers.job import CannotExport

OUTWARD = {
    "Python": "PyFunc EagerPyFunc PyFuncStateless",
    "not in the model": "RemoteCall XlaHostCompute TRTEngineOp InitializeTRTResource",
    "files": """
        ReadFile WriteFile MatchingFiles WholeFileReaderV2 TextLineReaderV2 TFRecordReader
        FixedLengthRecordReaderV2 LMDBReader Save SaveV2 SaveSlices Restore RestoreV2
        RestoreSlice MergeV2Checkpoints ShardedFilename InitializeTableFromTextFileV2
        ImmutableConst LoadAndRemapMatrix GenerateVocabRemapping DecodeProtoV2 EncodeProto
        WriteSummary CreateSummaryFileWriter ScalarSummary ImportEvent DebugIdentityV3 PrintV2
    """,
    "data sets": """
        TextLineDataset TFRecordDatasetV2 SqlDataset CacheDatasetV2 SaveDatasetV2
        SnapshotDataset OneShotIterator
    """,
    "another machine": """
        RpcCall RpcClient TryRpc CollectiveReduceV2 DataServiceDatasetV2 _Send _Recv
    """,
}
COMPUTES = """
    Conv2D DepthwiseConv2dNative MatMul BatchMatMulV2 Einsum BiasAdd FusedBatchNormV3 Relu6
    Identity ReadVariableOp VarHandleOp AssignVariableOp StatefulPartitionedCall While If
    TensorListReserve TensorListFromTensor GatherV2 ResourceGather StridedSlice Softmax Erfc
    ResizeBilinear NonMaxSuppressionV5 TopKV2 Print Assert NoOp Const Placeholder Select Cumsum
    RandomUniform DisableCopyOnRead Where Unique Profile Recip SegmentSum LSTMBlockCell
"""


@pytest.mark.parametrize(
    ("why", "operator"), [(why, one) for why, ops in OUTWARD.items() for one in ops.split()]
)
def test_what_reaches_out_is_told(why: str, operator: str) -> None:
    assert why in (why_outward(operator) or "")


@pytest.mark.parametrize("operator", COMPUTES.split())
def test_what_only_computes_passes(operator: str) -> None:
    assert why_outward(operator) is None
    assert why_not_computed(operator) is None


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("StringSplitV2", "strings"),
        ("StaticRegexReplace", "strings"),
        ("UnicodeDecode", "strings"),
        ("DecodeJpeg", "strings"),
        ("ParseExampleV2", "strings"),
        ("AsString", "strings"),
        ("HashTableV2", "tables"),
        ("LookupTableFindV2", "tables"),
        ("MutableDenseHashTableV2", "tables"),
    ],
)
def test_what_no_board_computes_is_told(operator: str, kind: str) -> None:
    assert why_not_computed(operator) == kind


def test_the_signature_is_the_default_one_or_the_only_one() -> None:
    assert pick_signature("m", ["train", "serving_default"]) == "serving_default"
    assert pick_signature("m", ["predict"]) == "predict"


def test_no_signature_and_several_are_told() -> None:
    with pytest.raises(CannotExport, match="it has no signature") as none:
        pick_signature("m", [])
    assert "signatures=" in none.value.hint
    with pytest.raises(CannotExport, match="it has encode, score") as several:
        pick_signature("m", ["score", "encode"])
    assert "serving_default" in several.value.hint
