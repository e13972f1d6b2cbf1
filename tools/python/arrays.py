"""Reading and writing case folders: arrays, their true names, comparison."""

import json
import zipfile
from pathlib import Path

import numpy as np

# Every archive has the same time stamp, so that equal content is equal bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)


def write_npz(path, arrays):
    """Write arrays by name, uncompressed, in the given order; the same arrays always give the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=EPOCH)
            with archive.open(info, "w", force_zip64=True) as entry:
                # order="C" keeps scalars scalars, which ascontiguousarray does not.
                np.lib.format.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)


def true_names(case_dir):
    """The names.json of a case: what the keys of inputs.npz and expected.npz stand for, where they differ."""
    path = Path(case_dir) / "names.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def read_npz(case_dir, which):
    """The arrays of `inputs` or `expected` by their true names."""
    names = true_names(case_dir).get(which, {})
    with np.load(Path(case_dir) / f"{which}.npz") as arrays:
        return {names.get(key, key): arrays[key] for key in arrays.files}


def tolerance(dtype, scale):
    """(rtol, atol) for results of a type whose largest finite magnitude is `scale`.

    Wider than the evaluator's own: ONNX Runtime fuses, reassociates and approximates in fp32.
    """
    if dtype == np.float16:
        return 1e-2, 2e-3 * scale
    return 1e-3, 1e-4 * scale


def difference(expected, actual):
    """Why `actual` is not `expected` (None if it is), and the largest error relative to the largest magnitude."""
    actual = np.asarray(actual)
    if expected.dtype != actual.dtype:
        return f"element type {actual.dtype} instead of {expected.dtype}", None
    if expected.shape != actual.shape:
        return f"shape {actual.shape} instead of {expected.shape}", None
    if expected.dtype.kind != "f":
        wrong = int((expected != actual).sum())
        return (f"{wrong} of {expected.size} elements differ" if wrong else None), 0.0
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.abs(e[np.isfinite(e)])
    scale = float(finite.max()) if finite.size else 0.0
    rtol, atol = tolerance(expected.dtype, scale)
    with np.errstate(all="ignore"):
        error = np.abs(a - e)
        same = (e == a) | (np.isnan(e) & np.isnan(a)) | (np.isfinite(e) & (error <= atol + rtol * np.abs(e)))
        worst = float(np.nanmax(np.where(e == a, 0.0, error))) if e.size else 0.0
    wrong = int((~same).sum())
    message = f"{wrong} of {e.size} elements differ, by {worst:.2e} at most" if wrong else None
    return message, worst / scale if scale > 0 else worst
