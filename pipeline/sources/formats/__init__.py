"""How file formats and servers hand out bytes; nothing here knows of collections of images.

In: an open file, or a URL. Out: where members lie, their bytes, or why they cannot be read. Read
first: `open_file`, then the format in question: `zip_directory`; `tar_headers`; `stored_arrays`
on `stored_bytes`; `image_columns` and `table_rows`; `video_decoder` on `video_index`; `objects`
with `object_identity` and `remote_errors`.
"""
