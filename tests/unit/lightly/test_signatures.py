"""The surface that scripts written for `lightly` rely on: names, argument names, order, defaults."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import watcher.lightly
from watcher.lightly import ApiWorkflowClient, SamplerConfig, SamplingMethod
from watcher.lightly.client import ApiWorkflowClient as Direct

NO = inspect.Parameter.empty
DOCUMENTED = {
    "__init__": [("token", None), ("dataset_id", None), ("embedding_id", None)],
    "append_embeddings": [("path_to_embeddings_csv", NO), ("embedding_id", NO)],
    "check_version_compatibility": [],
    "create_dataset": [("dataset_name", NO)],
    "create_new_dataset_with_unique_name": [("dataset_basename", NO)],
    "create_tag_from_filenames": [("fnames_new_tag", NO), ("new_tag_name", NO), ("parent_tag_id", None)],
    "delete_dataset_by_id": [("dataset_id", NO)],
    "download_dataset": [("output_dir", NO), ("tag_name", "initial-tag"), ("verbose", True)],
    "download_new_raw_samples": [],
    "download_raw_samples": [("from_", 0), ("to", None)],
    "get_all_tags": [],
    "get_datasource": [],
    "get_embedding_by_name": [("name", NO), ("ignore_suffix", True)],
    "get_filenames": [],
    "get_filenames_in_tag": [("tag_data", NO), ("filenames_on_server", None), ("exclude_parent_tag", False)],
    "get_processed_until_timestamp": [],
    "get_tag_by_id": [("tag_id", NO)],
    "get_tag_by_name": [("tag_name", NO)],
    "index_custom_metadata_by_filename": [("filenames", NO), ("custom_metadata", NO)],
    "sampling": [("sampler_config", NO), ("preselected_tag_id", None), ("query_tag_id", None)],
    "set_dataset_id_by_name": [("dataset_name", NO)],
    "set_embedding_id_to_latest": [],
    "update_processed_until_timestamp": [("timestamp", NO)],
    "upload_custom_metadata": [("custom_metadata", NO), ("verbose", False), ("max_workers", 8)],
    "upload_dataset": [
        ("input", NO),
        ("max_workers", 8),
        ("mode", "thumbnails"),
        ("verbose", True),
        ("custom_metadata", None),
    ],
    "upload_embeddings": [("path_to_embeddings_csv", NO), ("name", NO)],
    "upload_file_with_signed_url": [("file", NO), ("signed_write_url", NO), ("headers", None)],
    "upload_scores": [("al_scores", NO), ("query_tag_id", None)],
    "verify_custom_metadata_format": [("custom_metadata", NO)],
}


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_signature_is_the_documented_one(name):
    parameters = list(inspect.signature(getattr(ApiWorkflowClient, name)).parameters.values())[1:]
    positional = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == DOCUMENTED[name]
    # Whatever is added must not move an argument of a script.
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not NO for p in parameters[len(positional) :])


@pytest.mark.parametrize("name", sorted({*DOCUMENTED, "dataset_id", "dataset_type", "embedding_id", "token"}))
def test_every_method_is_documented(name):
    assert inspect.getdoc(ApiWorkflowClient if name == "__init__" else getattr(ApiWorkflowClient, name))


@pytest.mark.parametrize("name", ["dataset_id", "dataset_type", "embedding_id"])
def test_properties_are_properties(name):
    assert isinstance(inspect.getattr_static(ApiWorkflowClient, name), property)


@pytest.mark.parametrize("name", watcher.lightly.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(watcher.lightly, name) is not None
    assert name in dir(watcher.lightly)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="Nothing"):
        _ = watcher.lightly.Nothing
    assert Direct is ApiWorkflowClient


def test_sampler_config_has_the_documented_defaults():
    config = SamplerConfig()
    assert (config.method, config.n_samples, config.min_distance) == (SamplingMethod.CORESET, 32, -1)
    assert config.name.startswith("CORESET_32_-1_")
    assert SamplingMethod.CORAL == "CORAL"
    with pytest.raises(ValueError, match="BEST"):
        SamplerConfig("BEST")


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_importing_wire_does_not_import_the_client():
    program = "import sys, watcher.lightly.wire.tags; print([m for m in ('requests', 'watcher.lightly.client') if m in sys.modules])"
    assert _run(program) == "[]"


def test_importing_the_client_needs_neither_numpy_nor_pillow_nor_the_daemon():
    program = (
        "import sys\nfrom watcher.lightly import ApiWorkflowClient\n"
        "print([m for m in ('numpy', 'PIL', 'sqlalchemy', 'structlog', 'rich', 'pydantic', 'pyarrow', 'watcher.images')"
        " if m in sys.modules])"
    )
    assert _run(program) == "[]"
