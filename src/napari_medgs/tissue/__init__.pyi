from .api import tissues as tissues
from .bias import LegendreBasis as LegendreBasis
from .choice import choose_classes as choose_classes
from .params import TissueParams as TissueParams
from .prepare import image_of_field as image_of_field
from .result import TissueResult as TissueResult
