"""The served document has every operation of the protocol, under its own name, path, method and success status."""

from __future__ import annotations

import msgspec
import pytest
from openapi_spec_validator import validate

from watcher.platform.app import OPERATIONS
from watcher.platform.openapi import build_document

D = "/v1/datasets/{datasetId}"
S = D + "/samples/{sampleId}"
T = D + "/tags/{tagId}"
E = D + "/embeddings/{embeddingId}"
C = "/v1/configuration/metadata"

PROTOCOL = {
    "getLatestPipVersion": ("GET", "/v1/versions/pip/latest", 200),
    "getMinimumCompatiblePipVersion": ("GET", "/v1/versions/pip/minimum", 200),
    "getQuotaMaximumDatasetSize": ("GET", "/v1/quota", 200),
    "getPing": ("GET", "/ping", 200),
    "getDatasets": ("GET", "/v1/datasets", 200),
    "createDataset": ("POST", "/v1/datasets", 201),
    "getDatasetsEnriched": ("GET", "/v1/datasets/enriched", 200),
    "getDatasetsQueryByName": ("GET", "/v1/datasets/query/name/{datasetName}", 200),
    "getDatasetById": ("GET", D, 200),
    "updateDatasetById": ("PUT", D, 200),
    "deleteDatasetById": ("DELETE", D, 200),
    "registerDatasetUploadById": ("PUT", D + "/registerDatasetUpload", 200),
    "updateMetaDataConfigurationIdByDatasetId": ("PUT", D + "/setMetaDataConfiguration", 200),
    "getDatasourceByDatasetId": ("GET", D + "/datasource", 200),
    "updateDatasourceByDatasetId": ("PUT", D + "/datasource", 200),
    "getDatasourcesByDatasetId": ("GET", D + "/datasource/all", 200),
    "verifyDatasourceByDatasetId": ("GET", D + "/datasource/verify", 200),
    "getListOfRawSamplesFromDatasourceByDatasetId": ("GET", D + "/datasource/list", 200),
    "getDivideAndConquerListOfRawSamplesFromDatasourceByDatasetId": ("GET", D + "/datasource/list/dnc", 200),
    "getDatasourceProcessedUntilTimestampByDatasetId": (
        "GET",
        D + "/datasource/processedUntilTimestamp",
        200,
    ),
    "updateDatasourceProcessedUntilTimestampByDatasetId": (
        "PUT",
        D + "/datasource/processedUntilTimestamp",
        200,
    ),
    "getResourceReadUrlRedirect": ("GET", D + "/datasource/readurlRedirect", 302),
    "getSamplesByDatasetId": ("GET", D + "/samples", 200),
    "createSampleByDatasetId": ("POST", D + "/samples", 201),
    "createSampleWithWriteUrlsByDatasetId": ("POST", D + "/samples/withWriteUrls", 201),
    "getSamplesPartialByDatasetId": ("GET", D + "/samples/partial", 200),
    "getSampleById": ("GET", S, 200),
    "updateSampleById": ("PUT", S, 200),
    "getSampleImageReadUrlById": ("GET", S + "/readurl", 200),
    "getSampleImageResourceRedirectById": ("GET", S + "/readurlRedirect", 302),
    "getSampleImageWriteUrlById": ("GET", S + "/writeurl", 200),
    "getSampleImageWriteUrlsById": ("GET", S + "/writeurls", 200),
    "getSampleMappingsByDatasetId": ("GET", D + "/mappings", 200),
    "getTagsByDatasetId": ("GET", D + "/tags", 200),
    "createTagByDatasetId": ("POST", D + "/tags", 201),
    "createInitialTagByDatasetId": ("POST", D + "/tags/initial", 201),
    "upsizeTagsByDatasetId": ("POST", D + "/tags/upsize", 201),
    "performTagArithmetics": ("POST", D + "/tags/arithmetics", 200),
    "performTagArithmeticsBitmask": ("POST", D + "/tags/arithmetics/bitmask", 200),
    "getTagByTagId": ("GET", T, 200),
    "updateTagByTagId": ("PUT", T, 200),
    "deleteTagByTagId": ("DELETE", T, 200),
    "getFilenamesByTagId": ("GET", T + "/filenames", 200),
    "exportTagToBasicFilenames": ("GET", T + "/export/basic/filenames", 200),
    "exportTagToLabelStudioTasks": ("GET", T + "/export/LabelStudio/tasks", 200),
    "exportTagToLabelBoxDataRows": ("GET", T + "/export/LabelBox/datarows", 200),
    "exportTagToLabelBoxV4DataRows": ("GET", T + "/export/LabelBoxV4/datarows", 200),
    "getSharedAccessConfigsByDatasetId": ("GET", D + "/collaboration/access", 200),
    "createOrUpdateSharedAccessConfigByDatasetId": ("POST", D + "/collaboration/access", 201),
    "deleteSharedAccessConfigById": ("DELETE", D + "/collaboration/access/{accessConfigId}", 200),
    "getEmbeddingsByDatasetId": ("GET", D + "/embeddings", 200),
    "deleteEmbeddingById": ("DELETE", E, 200),
    "getEmbeddingsCsvWriteUrlById": ("GET", D + "/embeddings/writeCSVUrl", 200),
    "getEmbeddingsCsvReadUrlById": ("GET", E + "/readCSVUrl", 200),
    "setEmbeddingsIsProcessedFlagById": ("PUT", E + "/isProcessed", 200),
    "trigger2dEmbeddingsJob": ("POST", E + "/trigger2dEmbeddingsJob", 200),
    "getEmbeddings2dByEmbeddingId": ("GET", E + "/2d", 200),
    "createEmbeddings2dByEmbeddingId": ("POST", E + "/2d", 201),
    "getEmbedding2dById": ("GET", E + "/2d/{embedding2dId}", 200),
    "getEmbeddingsBySampleId": ("GET", "/users/datasets/{datasetId}/samples/{sampleId}/embeddings", 200),
    "triggerSamplingById": ("POST", E + "/sampling", 200),
    "getJobs": ("GET", "/v1/jobs", 200),
    "getJobStatusById": ("GET", "/v1/jobs/{jobId}", 200),
    "getActiveLearningScoresByTagId": ("GET", T + "/scores", 200),
    "createOrUpdateActiveLearningScoreByTagId": ("POST", T + "/scores", 201),
    "getActiveLearningScoreByScoreId": ("GET", T + "/scores/{scoreId}", 200),
    "getActiveLearningV2ScoresByDatasetId": ("GET", D + "/predictions/scores", 200),
    "createOrUpdateActiveLearningV2ScoreByDatasetId": ("POST", D + "/predictions/scores", 201),
    "getActiveLearningV2ScoreByDatasetAndScoreId": ("GET", D + "/predictions/scores/{scoreId}", 200),
    "getMetaDataConfigurations": ("GET", C, 200),
    "createMetaDataConfiguration": ("POST", C, 201),
    "getMetaDataConfigurationById": ("GET", C + "/{configurationId}", 200),
    "updateMetaDataConfigurationById": ("PUT", C + "/{configurationId}", 200),
    "getMetaDataConfigurationsByDatasetId": ("GET", D + "/configuration/metadata", 200),
    "createMetaDataConfigurationByDatasetId": ("POST", D + "/configuration/metadata", 201),
    "getMetaDataConfigurationByIdByDatasetId": ("GET", D + "/configuration/metadata/{configurationId}", 200),
    "updateMetaDataConfigurationByIdByDatasetId": (
        "PUT",
        D + "/configuration/metadata/{configurationId}",
        200,
    ),
}


@pytest.fixture(scope="module")
def document() -> dict:
    return msgspec.json.decode(build_document(OPERATIONS))


def test_document_describes_the_whole_protocol_and_marks_what_is_ours(document):
    described, own = {}, set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            (success,) = (int(status) for status in operation["responses"] if int(status) < 400)
            if operation.get("x-own"):
                own.add(operation["operationId"])
            else:
                described[operation["operationId"]] = (method.upper(), path, success)
    assert described == PROTOCOL
    assert own == {"cancelJobById"}


def test_samples_can_be_asked_for_by_every_parameter_of_the_protocol(document):
    operation = document["paths"][D + "/samples"]["get"]
    query = {each["name"]: each["schema"] for each in operation["parameters"] if each["in"] == "query"}
    assert set(query) == {"mode", "fileName", "sortBy", "pageSize", "pageOffset"}
    assert query["sortBy"]["enum"] == ["_id", "index"]


def test_document_is_valid_openapi(document):
    validate(document)
