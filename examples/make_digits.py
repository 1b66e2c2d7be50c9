"""Write scikit-learn's digits (1,797 grey images of 8 x 8, labels 0-9) as the Parquet file of the embedded default.

python examples/make_digits.py            # writes examples/data/digits.parquet
"""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PIL
from sklearn.datasets import load_digits

OUT = Path(__file__).parent / "data" / "digits.parquet"

if __name__ == "__main__":
    digits = load_digits()
    pixels = np.rint(digits.images / 16 * 255).astype(np.uint8)
    columns = {"image": [PIL.fromarray(p) for p in pixels], "label": digits.target.tolist()}
    features = Features({"image": Image(), "label": ClassLabel(names=[str(d) for d in range(10)])})
    OUT.parent.mkdir(exist_ok=True)
    Dataset.from_dict(columns, features=features).to_parquet(OUT)
    print(f"{OUT}: {len(pixels)} images, {OUT.stat().st_size // 1024} kB")
