from .card import CodecCard as CodecCard
from .codec import Codec as Codec
from .files import load_codec as load_codec
from .files import save_codec as save_codec
from .fits import fit_alike as fit_alike
from .fits import mean_field as mean_field
from .params import CodecParams as CodecParams
from .train import train_codec as train_codec
