"""OpenCV and Pillow: codecs, filters, colour spaces, and buffers that both share with NumPy.

Needs: cv2, PIL
"""

import cv2
import numpy as np
from PIL import Image, ImageFilter

cv2.setNumThreads(4)
y, x = np.mgrid[0:600, 0:800]
image = np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype("u1")
ok, packed = cv2.imencode(".png", image)
print(ok, packed.shape, np.array_equal(cv2.imdecode(packed, cv2.IMREAD_COLOR), image))
print(
    cv2.GaussianBlur(image, (9, 9), 2).sum(),
    cv2.resize(image, (333, 222)).sum(),
    cv2.cvtColor(image, cv2.COLOR_BGR2HSV).sum(),
)
edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 50, 150)
print(int(edges.sum()), len(cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]))
cv2.imwrite("a.jpg", image)
out = np.empty_like(image)
cv2.flip(image, 1, dst=out)
print(np.array_equal(out, image[:, ::-1]), cv2.matchTemplate(image, image[100:150, 200:260], cv2.TM_SQDIFF).min())
try:
    cv2.resize(image, (0, 0))
except cv2.error as error:
    print(error.err)
pil = Image.fromarray(image)
pil.save("b.png")
print(np.array_equal(np.asarray(Image.open("b.png")), image), pil.filter(ImageFilter.BoxBlur(3)).tobytes()[:6].hex())
print(
    np.asarray(pil.convert("L")).sum(),
    np.asarray(pil.rotate(90, expand=True)).shape,
    Image.frombuffer("L", (800, 600), image[..., 0].copy()).getpixel((5, 7)),
)
