"""Write the toy body to each path given, as SMPL is released: chumpy arrays inside, of classes that are stand-ins."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import scipy.sparse
import toys


class Ch:
    """An array."""


class Select(Ch):
    """A part of another array."""


for cls, name in ((Ch, "chumpy.ch"), (Select, "chumpy.reordering")):
    module = types.ModuleType(name)
    cls.__module__ = name
    setattr(module, cls.__name__, cls)
    sys.modules[name] = module
sys.modules["chumpy"] = types.ModuleType("chumpy")

model = toys.smpl_model()
leaf, inner, select = Ch(), Ch(), Select()
leaf.__dict__.update(x=model["v_template"], _dirty_vars=set())
inner.__dict__.update(x=np.concatenate([model["shapedirs"], model["shapedirs"]], axis=2))
first_ten = np.arange(inner.x.size).reshape(inner.x.shape)[:, :, :10].ravel()
select.__dict__.update(a=inner, idxs=first_ten, preferred_shape=model["shapedirs"].shape)
regressor = scipy.sparse.csc_matrix(model["J_regressor"])
model.update(v_template=leaf, shapedirs=select, J_regressor=regressor, bs_style="lbs", bs_type="lrotmin")
for path in sys.argv[1:]:
    Path(path).write_bytes(pickle.dumps(model, protocol=2))
