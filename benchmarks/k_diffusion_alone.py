"""k-diffusion's samplers without the dozen packages that the whole asks for: of it only sampling.py is run."""

import importlib.util
import sys
import types
from importlib.metadata import distribution


def sampling():
    """k-diffusion's sampling.py by itself, without the dozen packages that the whole asks for."""
    names = ("k_diffusion", "k_diffusion.utils", "torchdiffeq", "torchsde")
    package, utils, odeint, _ = (sys.modules.setdefault(name, types.ModuleType(name)) for name in names)
    utils.append_dims = lambda x, axes: x[(...,) + (None,) * (axes - x.ndim)]  # pyright: ignore
    package.utils, odeint.odeint = utils, None  # pyright: ignore
    path = distribution("k-diffusion").locate_file("k_diffusion/sampling.py")
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
