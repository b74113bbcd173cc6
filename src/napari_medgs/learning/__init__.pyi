from .card import SegmenterCard as SegmenterCard
from .files import load_segmenter as load_segmenter
from .files import load_segmenter_card as load_segmenter_card
from .files import save_segmenter as save_segmenter
from .networks.slots import SegmenterConfig as SegmenterConfig
from .segmenter import Segmenter as Segmenter
from .segmenter import SegmenterResult as SegmenterResult
