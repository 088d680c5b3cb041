"""Rests served by ONNX Runtime: the same answers as from our libraries."""

import numpy as np
import pytest
from forked_run import FEATURES, FROM_IMAGE, IMAGE, SECOND, compiled

from modeltree.errors import ConfigError
from runtime.server.engine.engine import BundleEngine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("onnx"), onnx=True)


@pytest.mark.parametrize(("model", "shape"), [(FROM_IMAGE, IMAGE), (SECOND, FEATURES)])
@pytest.mark.parametrize("images", [1, 3, 11])
def test_onnx_runtime_answers_as_our_libraries_do(bundle, model, shape, images):
    x = np.random.default_rng(images).standard_normal((images, *shape), np.float32)
    with BundleEngine(bundle) as ours, BundleEngine(bundle, backend="onnx") as theirs:
        assert ours.models == theirs.models
        np.testing.assert_allclose(theirs.infer(model, x).output, ours.infer(model, x).output, rtol=1e-4, atol=1e-4)


def test_a_bundle_without_onnx_forms_says_how_to_get_them(tmp_path):
    with pytest.raises(ConfigError, match="nas compile --onnx"):
        BundleEngine(compiled(tmp_path), backend="onnx")


def test_an_unknown_backend_is_refused_with_those_known(bundle):
    with pytest.raises(ConfigError, match="onnx, tvm"):
        BundleEngine(bundle, backend="tensorrt")
