"""What a model file may name, and what it may do with each name. Everything that is not here is refused.

A name is allowed for a purpose. `sklearn.linear_model._logistic.LogisticRegression` may be made empty and given
a state, never called with arguments; `numpy.log1p` may be an attribute, never called; the few functions that
rebuild arrays may be called, with the arguments that pickle writes and no others. Names are exact, and a name
with a dot in it (`os.system` below `sklearn.base`) is never on the list.

Estimators are the one open set: any class that scikit-learn itself defines and that is a `BaseEstimator`. That
is looked up by importing the module it claims, which happens only below `sklearn` and outside its test code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from fairway.security import pickle_acts as acts
from fairway.security.pickle_acts import Arguments, State
from fairway.security.pickle_values import Global, Mapping


@dataclass(frozen=True)
class Rule:
    """The purposes a name is allowed for, besides standing as a value.

    `call` and `new` look at the arguments of a call and of `cls.__new__`, `state` at what `__setstate__` would
    get; None forbids the act. `makes` tells what a call gives: the name itself, "first" for the class in the
    first argument, or another dotted name. `items` tells which items the result takes: "list", "dict" or "set".
    """

    call: Arguments | None = None
    new: Arguments | None = None
    state: State | None = None
    makes: str = ""
    items: str = ""


def _reconstructor(arguments: tuple[Any, ...]) -> bool:
    """`copyreg._reconstructor(cls, base, state)`, which protocols 0 and 1 use: `base.__new__(cls, state)`."""
    if len(arguments) != 3 or not isinstance(arguments[0], Global):
        return False
    cls, base, state = arguments
    rule = rule_for(cls)
    if rule is None or rule.new is None or not rule.new(()):
        return False
    if acts.is_named(base, "builtins.object"):
        return state is None
    return acts.is_named(base, "builtins.dict") and isinstance(state, Mapping) and rule.items == "dict"


def _new_object(arguments: tuple[Any, ...]) -> bool:
    """`copyreg.__newobj__(cls, *args)`, the same as the NEWOBJ opcode."""
    if not arguments or not isinstance(arguments[0], Global):
        return False
    rule = rule_for(arguments[0])
    return rule is not None and rule.new is not None and rule.new(arguments[1:])


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_VALUE = Rule()
_EMPTY_THEN_ATTRIBUTES = Rule(new=acts.nothing, state=acts.attributes)
_ARRAY = Rule(state=acts.array_state)

_BUILTINS: dict[str, Rule] = {
    "builtins.object": Rule(new=acts.nothing, call=acts.nothing),
    "builtins.list": Rule(call=acts.collection, items="list"),
    "builtins.tuple": Rule(call=acts.collection),
    "builtins.dict": Rule(call=acts.collection, new=acts.nothing, items="dict"),
    "builtins.set": Rule(call=acts.collection, items="set"),
    "builtins.frozenset": Rule(call=acts.collection),
    "builtins.bytes": Rule(call=acts.some_bytes),
    "builtins.bytearray": Rule(call=acts.some_bytes),
    "builtins.int": Rule(call=acts.numbers),
    "builtins.float": Rule(call=acts.numbers),
    "builtins.bool": Rule(call=acts.numbers),
    "builtins.str": _VALUE,
    "builtins.complex": Rule(call=acts.numbers),
    "builtins.slice": Rule(call=acts.slice_parts),
    "builtins.range": Rule(call=acts.integers),
    "builtins.Ellipsis": _VALUE,
    "builtins.NotImplemented": _VALUE,
    "copyreg._reconstructor": Rule(call=_reconstructor, makes="first"),
    "copyreg.__newobj__": Rule(call=_new_object, makes="first"),
    "_codecs.encode": Rule(call=acts.some_bytes),
    "collections.OrderedDict": Rule(
        call=acts.collection, new=acts.nothing, state=acts.attributes, items="dict"
    ),
    "collections.defaultdict": Rule(call=acts.factory, items="dict"),
    "collections.deque": Rule(call=acts.plain, items="list"),
    "datetime.date": Rule(call=acts.plain),
    "datetime.datetime": Rule(call=acts.plain),
    "datetime.timedelta": Rule(call=acts.integers),
    "datetime.timezone": Rule(
        call=lambda arguments: all(acts.made_by(a, "datetime.timedelta") for a in arguments)
    ),
}

_NUMPY: dict[str, Rule] = {
    "numpy.ndarray": _ARRAY,
    "numpy.matrix": _ARRAY,
    "numpy.dtype": Rule(call=acts.dtype_parts, state=acts.dtype_state),
    "numpy._core.multiarray._reconstruct": Rule(call=acts.empty_array, makes="first"),
    "numpy._core.multiarray.scalar": Rule(call=acts.array_scalar),
    "numpy._core.numeric._frombuffer": Rule(call=acts.array_buffer),
    "numpy.ma.MaskedArray": Rule(state=acts.masked_array_state),
    "numpy.ma.core.MaskedArray": Rule(state=acts.masked_array_state),
    "numpy.ma.core._mareconstruct": Rule(call=acts.empty_masked_array, makes="first"),
    "numpy.random._pickle.__bit_generator_ctor": Rule(call=acts.bit_generator, makes="first"),
    "numpy.random._pickle.__generator_ctor": Rule(call=acts.random_generator, makes="numpy.random.Generator"),
    "numpy.random._pickle.__randomstate_ctor": Rule(
        call=acts.random_generator, makes="numpy.random.RandomState"
    ),
    "numpy.random.Generator": Rule(state=acts.attributes_or_tuple),
    "numpy.random.RandomState": Rule(state=acts.attributes_or_tuple),
    "numpy.random.bit_generator.SeedSequence": Rule(state=acts.attributes_or_tuple),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": Rule(
        call=acts.own_class("numpy.random.bit_generator.SeedSequence"), makes="first"
    ),
} | dict.fromkeys(acts.BIT_GENERATORS.values(), Rule(state=acts.attributes_or_tuple))

# Elementwise functions and reductions of arrays, for FunctionTransformer and pooling: values, never called here.
_NUMPY_VALUES = (
    *(
        f"numpy.{name}"
        for name in _words(
            "abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh cbrt ceil clip cos cosh deg2rad "
            "degrees divide equal exp exp2 expm1 fabs float32 float64 floor fmax fmin greater hypot identity int16 int32 "
            "int64 int8 isfinite isinf isnan less log log10 log1p log2 logaddexp logical_and logical_not logical_or max "
            "maximum mean median min minimum mod multiply nan_to_num nanmax nanmean nanmedian nanmin negative positive "
            "power prod rad2deg radians ravel reciprocal remainder rint round sign sin sinh sqrt square std subtract sum "
            "tan tanh true_divide trunc uint16 uint32 uint64 uint8 var bool bool_ float16 str_ object_ datetime64 "
            "timedelta64 complex64 complex128 asarray"
        )
    ),
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
)

_SCIPY: dict[str, Rule] = {
    f"scipy.sparse._{form}.{form}_{kind}": _EMPTY_THEN_ATTRIBUTES
    for form in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
    for kind in ("matrix", "array")
} | {
    "scipy.interpolate._bsplines.BSpline": Rule(new=acts.nothing, state=acts.spline_state),
    "scipy.interpolate._bsplines._BSpline": _EMPTY_THEN_ATTRIBUTES,
    "scipy.special._ufuncs.expit": _VALUE,
    "scipy.special._ufuncs.logit": _VALUE,
    "scipy.special.expit": _VALUE,
    "scipy.special.logit": _VALUE,
}

# scikit-learn's supporting classes, which are no estimators: losses, kernels, trees, distances, splitters.
_SKLEARN_PLAIN = {
    "sklearn._loss.link": "IdentityLink LogLink LogitLink HalfLogitLink MultinomialLogit Interval",
    "sklearn._loss.loss": "AbsoluteError BaseLoss ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss "
    "HalfPoissonLoss HalfSquaredError HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss",
    "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration",
    "sklearn.cluster._birch": "_CFNode _CFSubcluster",
    "sklearn.cluster._bisect_k_means": "_BisectingTree",
    "sklearn.ensemble._hist_gradient_boosting.binning": "_BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels": "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation "
    "Matern PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel",
    "sklearn.metrics._scorer": "_CurveScorer _MultimetricScorer _PassthroughScorer _Scorer",
    "sklearn.model_selection._split": "GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut LeavePGroupsOut "
    "LeavePOut PredefinedSplit RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold "
    "StratifiedKFold StratifiedShuffleSplit TimeSeriesSplit _CVIterableWrapper",
    "sklearn.multiclass": "_ConstantPredictor",
    "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
}
# Classes written in Cython: made by their own constructor or unpickling function, with plain state.
_SKLEARN_LOSSES = _words(
    "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss CyHalfPoissonLoss "
    "CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss"
)
_SKLEARN_SGD = _words(
    "EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge SquaredLoss"
)
_DISTANCES = _words(
    "BrayCurtisDistance CanberraDistance ChebyshevDistance DiceDistance EuclideanDistance HammingDistance "
    "HaversineDistance JaccardDistance MahalanobisDistance ManhattanDistance MatchingDistance MinkowskiDistance "
    "RogersTanimotoDistance RussellRaoDistance SEuclideanDistance SokalMichenerDistance SokalSneathDistance"
)
_DISTANCE_CLASSES = tuple(
    f"sklearn.metrics._dist_metrics.{name}{bits}" for name in _DISTANCES for bits in ("", "32", "64")
)
_NEIGHBOUR_TREES = tuple(
    f"sklearn.neighbors.{module}.{name}{bits}"
    for module, name in (("_kd_tree", "KDTree"), ("_ball_tree", "BallTree"))
    for bits in ("", "32", "64")
)
_SKLEARN_CYTHON: dict[str, Rule] = (
    {f"sklearn._loss._loss.{name}": Rule(call=acts.plain, state=acts.any_tuple) for name in _SKLEARN_LOSSES}
    | {
        f"sklearn._loss._loss.__pyx_unpickle_{name}": Rule(
            call=acts.own_class(f"sklearn._loss._loss.{name}"), makes="first"
        )
        for name in _SKLEARN_LOSSES
    }
    | {
        f"sklearn.linear_model._sgd_fast.{name}": Rule(call=acts.plain, state=acts.any_tuple)
        for name in _SKLEARN_SGD
    }
    | {name: Rule(state=acts.any_tuple) for name in _DISTANCE_CLASSES + _NEIGHBOUR_TREES}
    | {"sklearn.metrics._dist_metrics.newObj": Rule(call=acts.own_class(*_DISTANCE_CLASSES), makes="first")}
    | {
        f"sklearn.neighbors.{module}.newObj": Rule(call=acts.own_class(*_NEIGHBOUR_TREES), makes="first")
        for module in ("_kd_tree", "_ball_tree")
    }
    | {
        "sklearn.tree._tree.Tree": Rule(
            call=lambda arguments: len(arguments) == 3 and not acts.holds_names(arguments),
            state=acts.attributes,
        ),
        "sklearn.utils._bunch.Bunch": Rule(
            call=acts.nothing, new=acts.nothing, state=acts.attributes, items="dict"
        ),
    }
)
# Functions an estimator holds as an attribute and calls on data: scores, kernels, one k-means step.
_SKLEARN_VALUES = {
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_regression r_regression",
    "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
    "sklearn.cluster._kmeans": "_kmeans_single_elkan _kmeans_single_lloyd lloyd_iter_chunked_dense",
    "sklearn.metrics._classification": "accuracy_score average_precision_score balanced_accuracy_score "
    "brier_score_loss cohen_kappa_score f1_score fbeta_score hamming_loss jaccard_score log_loss matthews_corrcoef "
    "precision_score recall_score zero_one_loss d2_log_loss_score",
    "sklearn.metrics._ranking": "average_precision_score dcg_score ndcg_score roc_auc_score top_k_accuracy_score",
    "sklearn.metrics._regression": "d2_absolute_error_score d2_pinball_score d2_tweedie_score "
    "explained_variance_score max_error mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance "
    "mean_pinball_loss mean_poisson_deviance mean_squared_error mean_squared_log_error mean_tweedie_deviance "
    "median_absolute_error r2_score root_mean_squared_error root_mean_squared_log_error",
    "sklearn.metrics.pairwise": "additive_chi2_kernel chi2_kernel cosine_distances cosine_similarity "
    "euclidean_distances laplacian_kernel linear_kernel manhattan_distances polynomial_kernel rbf_kernel "
    "sigmoid_kernel",
}

_BOOSTERS: dict[str, Rule] = dict.fromkeys(
    (
        "xgboost.core.Booster",
        *(f"xgboost.sklearn.XGB{name}" for name in ("Model", "Classifier", "Regressor", "Ranker")),
        *(f"xgboost.sklearn.XGBRF{name}" for name in ("Classifier", "Regressor")),
        "lightgbm.basic.Booster",
        *(f"lightgbm.sklearn.LGBM{name}" for name in ("Model", "Classifier", "Regressor", "Ranker")),
        *(f"catboost.core.CatBoost{name}" for name in ("", "Classifier", "Regressor", "Ranker")),
    ),
    _EMPTY_THEN_ATTRIBUTES,
)

_BOOSTERS["lightgbm.basic.Booster"] = Rule(new=acts.nothing, state=acts.lightgbm_state)

# DataFrames and Series inside a model. Arrow-backed columns are not here: pyarrow rebuilds arrays unchecked.
_PANDAS: dict[str, Rule] = {
    f"pandas{module}.{name}": Rule(new=acts.nothing, state=acts.attributes_or_tuple)
    for module, names in (
        ("", "DataFrame Series"),
        (".core.frame", "DataFrame"),
        (".core.series", "Series"),
    )
    for name in names.split()
}
_PANDAS |= dict.fromkeys(
    (f"pandas{module}.{name}" for module in ("", ".core.indexes.base") for name in ("Index", "RangeIndex")),
    _VALUE,
)
_PANDAS |= {
    "pandas.core.indexes.range.RangeIndex": _VALUE,
    "pandas.core.indexes.base._new_Index": Rule(
        call=lambda a: (
            len(a) == 2
            and acts.is_named(a[0], "pandas.Index", "pandas.RangeIndex", "pandas.core.indexes.base.Index")
            and isinstance(a[1], Mapping)
        ),
        makes="first",
    ),
    "pandas.core.internals.managers.BlockManager": Rule(
        call=lambda a: not acts.holds_names(a), new=acts.nothing, state=acts.any_tuple
    ),
    "pandas.core.internals.managers.SingleBlockManager": Rule(
        call=lambda a: not acts.holds_names(a), new=acts.nothing, state=acts.any_tuple
    ),
    "pandas._libs.internals._unpickle_block": Rule(call=lambda a: len(a) == 3 and not acts.holds_names(a)),
    "pandas.CategoricalDtype": _EMPTY_THEN_ATTRIBUTES,
    "pandas._libs.tslibs.timestamps._unpickle_timestamp": Rule(call=lambda a: not acts.holds_names(a)),
    "pandas._libs.tslibs.nattype._nat_unpickle": Rule(call=acts.plain),
    "pandas.NA": _VALUE,
    "pandas._libs.missing.NA": _VALUE,
}

_JOBLIB: dict[str, Rule] = {
    "joblib.numpy_pickle.NumpyArrayWrapper": Rule(new=acts.nothing, state=acts.attributes)
}

RULES: dict[str, Rule] = (
    _BUILTINS
    | _NUMPY
    | dict.fromkeys(_NUMPY_VALUES, _VALUE)
    | _SCIPY
    | {f"{m}.{name}": _EMPTY_THEN_ATTRIBUTES for m, names in _SKLEARN_PLAIN.items() for name in names.split()}
    | _SKLEARN_CYTHON
    | {f"{m}.{name}": _VALUE for m, names in _SKLEARN_VALUES.items() for name in names.split()}
    | _BOOSTERS
    | _PANDAS
    | _JOBLIB
)
"""Every name allowed by itself, by `module.name`. scikit-learn's estimators come on top, see `rule_for`."""

# Names as older protocols and numpy 1 wrote them -> as they are called today.
_RENAMED_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}
_RENAMED = {("builtins", "xrange"): "range", ("builtins", "long"): "int", ("builtins", "unicode"): "str"}

_ESTIMATOR_MODULE = re.compile(r"sklearn(\.[A-Za-z_][A-Za-z0-9_]*)+")
_NOT_MODELS = {
    "tests",
    "_testing",
    "_mocking",
    "_test_common",
    "conftest",
    "externals",
    "datasets",
    "experimental",
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def today(module: str, name: str) -> Global:
    """The name as the installed packages know it. The audit and the loader both go through here."""
    module = _RENAMED_MODULES.get(module, module)
    return Global(module, _RENAMED.get((module, name), name))


def rule_for(wanted: Global) -> Rule | None:
    """What the file may do with a name (already passed through `today`), or None when it is not allowed at all."""
    if not _IDENTIFIER.fullmatch(wanted.name):
        return None
    rule = RULES.get(wanted.dotted)
    if rule is None and is_estimator(wanted.module, wanted.name):
        rule = _EMPTY_THEN_ATTRIBUTES
    return rule


@lru_cache(maxsize=4096)
def is_estimator(module: str, name: str) -> bool:
    """Whether `module.name` is an estimator class that scikit-learn itself defines, under its own name there."""
    if not _ESTIMATOR_MODULE.fullmatch(module) or not _NOT_MODELS.isdisjoint(module.split(".")):
        return False
    try:
        base = import_module("sklearn.base").BaseEstimator
        found = vars(import_module(module)).get(name)
    except Exception:  # noqa: BLE001 - a module that is not there, or not importable here, is not allowed
        return False
    return (
        isinstance(found, type)
        and issubclass(found, base)
        and found.__module__ == module
        and found.__qualname__ == name
    )
