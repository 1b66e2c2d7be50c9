"""Images, vectors and draws of densities as batches."""

from dxmi.data.feature_maps import FeatureMaps as FeatureMaps
from dxmi.data.items import Batch as Batch
from dxmi.data.items import Crops as Crops
from dxmi.data.items import Draws as Draws
from dxmi.data.items import Images as Images
from dxmi.data.items import Items as Items
from dxmi.data.items import Vectors as Vectors
from dxmi.data.items import permutation as permutation
from dxmi.data.latent_cache import Encoded as Encoded
from dxmi.data.latent_cache import cached as cached
from dxmi.data.load import Source as Source
from dxmi.data.load import check_labels as check_labels
from dxmi.data.load import draw_batch as draw_batch
from dxmi.data.load import load_data as load_data
from dxmi.data.load import load_images as load_images
from dxmi.data.load import load_vectors as load_vectors
from dxmi.data.pixels import scaled as scaled
from dxmi.data.streams import Stream as Stream
from dxmi.data.tables import about_key as about_key
from dxmi.data.tables import load_table as load_table
