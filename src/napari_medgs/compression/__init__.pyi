from .api import CompressResult as CompressResult
from .api import compress as compress
from .api import decompress as decompress
from .attributes import AttributeCoder as AttributeCoder
from .attributes import StepCoder as StepCoder
from .params import CompressParams as CompressParams
from .params import Profile as Profile
