"""From the bytes of images to pixels.

In: names of images, and the sources that open them. Out: image records named by the hash of their
content, and batches of decoded pixels. Read first: `survey` (hash and measure each image), `decode`
(one image as viewers show it), `loader` (batches, decoded in threads), `encoded` (images read
for others to decode).
"""
