from .dit import DiT as DiT
from .latent_diffusion import LatentDiffusion as LatentDiffusion
from .stable_diffusion import StableDiffusion as StableDiffusion
from .stable_diffusion_3 import StableDiffusion3 as StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL as StableDiffusionXL
from .unet import UNet as UNet
