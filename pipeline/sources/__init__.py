"""From whatever holds images to their names, versions and bytes.

In: what a person gives: folders, files, patterns, lists, archives, URLs, or arrays in memory. Out:
a name for each image, what tells its versions apart, and its bytes or pixels. Read first: `source`
(what a kind of source is), then `sources` (all kinds together: find images, open them by name).

The kinds, one file each in `kinds`:

- `files`: image files, by themselves or in folders
- `zip_archive`, `tar_archive`: archives, read without unpacking (`archive` is what both share)
- `array_files`: ``.npy`` and ``.npz``
- `image_tables`: Parquet and Arrow files with a column of images
- `video`: frames of videos
- `remote`: whatever fsspec opens by a URL
- `memory`: arrays, tensors and Pillow images of a program
- `hf_dataset`: Hugging Face datasets of a program

To add a kind that a path or URL can be of, write such a file and name its class in `sources.KINDS`
before `Files`, which takes whatever no other kind does. What a program holds is told apart in
`lpipstore.workflows.session.given` instead. How the formats lie on disk or come from servers is in
`formats`.
"""
