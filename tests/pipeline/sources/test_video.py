"""Frames of videos: their names, their pixels in any order, and damaged files."""

import pickle
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.sources.formats import video_decoder
from lpipstore.pipeline.sources.formats.video_index import missing_bytes, parse_time, time_name
from lpipstore.pipeline.sources.kinds.video import Video
from lpipstore.pipeline.sources.source import ImageError, SourceOptions
from lpipstore.pipeline.sources.sources import Sources

SIDE = (32, 48)  # height, width


def moving(count, size=SIDE, seed=0):
    """Smooth frames that move, each different."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    frames = []
    for number in range(count):
        waves = [np.sin((x + 2 * y * k + 3 * number) / 9 + phase[k]) for k in range(3)]
        frames.append(np.uint8(127.5 + 127 * np.stack(waves, -1)))
    return frames


def write(path, frames, codec, pixels, *, rate=10, times=None, options=None, audio=False, **set_):
    """Write a video of frames [height, width, 3]; `times` are in milliseconds."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count = 1
        for name, value in set_.items():
            getattr(stream, name)(value) if name.startswith("set_") else setattr(
                stream.codec_context, name, value
            )
        base = Fraction(1, 1000) if times else Fraction(1, rate)
        stream.codec_context.time_base = base
        sound = file.add_stream("pcm_s16le", rate=8000) if audio else None
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts = times[number] if times else number
            picture.time_base = base
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
        if sound is not None:
            for start in range(0, 8000, 800):
                chunk = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
                chunk.sample_rate, chunk.pts = 8000, start
                file.mux(sound.encode(chunk))
    return str(path)


def pixels_of(source, members):
    return [source.read(member).numpy() for member in members]


EXACT = {
    "ffv1.mkv": ("ffv1", "bgr0", {}),
    "x264rgb.mp4": ("libx264rgb", "rgb24", {"crf": "0"}),
    "x264rgb.mkv": ("libx264rgb", "rgb24", {"crf": "0", "g": "7"}),
    "raw.avi": ("rawvideo", "bgr24", {}),
    "utvideo.avi": ("utvideo", "gbrp", {}),
}


@pytest.mark.parametrize("name", EXACT)
def test_lossless_videos_in_rgb_give_every_pixel_back(tmp_path, name):
    codec, pixels, options = EXACT[name]
    frames = moving(23)
    source = Video(write(tmp_path / name, frames, codec, pixels, options=options))
    listing = source.list()
    assert listing.members == [time_name(100_000 * n) for n in range(23)]
    assert listing.unreadable == []
    read = pixels_of(source, listing.members)
    assert all((ours == frame).all() for ours, frame in zip(read, frames, strict=True))


def test_lossless_yuv_keeps_pixels_within_the_rounding_of_its_colours(tmp_path):
    frames = moving(12)
    options = {"qp": "0"}
    source = Video(write(tmp_path / "a.mp4", frames, "libx264", "yuv444p", options=options))
    read = pixels_of(source, source.list().members)
    far = [np.abs(a.astype(int) - b).max() for a, b in zip(read, frames, strict=True)]
    assert 0 < max(far) <= 3  # 8 bits of luma and chroma, of limited range


CODECS = {
    "b-frames.mp4": ("libx264", "yuv420p", {"g": "12", "bf": "3"}),
    "b-frames.mkv": ("libx264", "yuv420p", {"g": "12", "bf": "3"}),
    "open-gop.mkv": ("libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=10:bframes=3"}),
    "intra-refresh.mp4": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=10"}),
    "open-gop.mov": ("libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=10:bframes=3"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "12"}),
    "xvid.avi": ("mpeg4", "yuv420p", {"g": "12", "bf": "2"}),
    "x264.avi": ("libx264", "yuv420p", {"g": "12", "bf": "2"}),
    "old.mpg": ("mpeg1video", "yuv420p", {"g": "12", "bf": "2"}),
    "ffv1.mkv": ("ffv1", "bgr0", {}),
}


@pytest.mark.parametrize("name", CODECS)
def test_the_pixels_of_a_frame_are_the_same_forwards_and_after_any_search(tmp_path, name):
    codec, pixels, options = CODECS[name]
    place = write(tmp_path / name, moving(60), codec, pixels, rate=25, options=options)
    source = Video(place)
    listing = source.list()
    members = listing.members
    assert (len(members), listing.unreadable) == (60, [])
    forwards = pixels_of(source, members)
    assert len({frame.tobytes() for frame in forwards}) == 60
    with av.open(place) as file:
        flags = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        plain = [
            frame.reformat(format="rgb24", interpolation=flags) for frame in file.decode(video=0)
        ]
        plain = [frame.to_ndarray() for frame in plain]
    assert all((a == b).all() for a, b in zip(forwards, plain, strict=True))
    order = [59, 0, 58, *np.random.default_rng(0).integers(0, 60, 40).tolist(), 30, 29, 28, 28]
    again = Video(place)
    for number in order:
        assert (again.read(members[number]).numpy() == forwards[number]).all(), number


def test_searching_spares_decoding_what_lies_between(tmp_path, monkeypatch):
    options = {"g": "10", "bf": "0"}
    place = write(tmp_path / "a.mp4", moving(200), "libx264", "yuv420p", options=options)
    decoded = []
    step = video_decoder.VideoDecoder._step
    monkeypatch.setattr(
        video_decoder.VideoDecoder, "_step", lambda self: decoded.append(1) or step(self)
    )
    source = Video(place, SourceOptions(every="50f"))
    members = source.list().members
    assert decoded == []
    assert members == ["t=0", "t=5", "t=10", "t=15"]
    pixels_of(source, members)
    assert len(decoded) <= 4 * 12
    decoded.clear()
    pixels_of(Video(place), Video(place).list().members)
    assert len(decoded) == 200


# ---- names


def test_names_are_times_in_seconds():
    for time, name in (
        (0, "t=0"),
        (1_500_000, "t=1.5"),
        (33_367, "t=0.033367"),
        (-40_000, "t=-0.04"),
    ):
        assert time_name(time) == name
        assert parse_time(name) == time
    assert parse_time("t=1.50") == 1_500_000
    for wrong in ("", "t=", "1.5", "t=1.", "t=.5", "t=1.1234567", "t=1e3", "t=nan", "t=²", "T=1"):
        assert parse_time(wrong) is None


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_frames_of_a_variable_rate_are_named_by_their_own_times(tmp_path, name):
    times = [0, 40, 90, 100, 700, 1500, 1510, 3333]
    place = write(tmp_path / name, moving(8), "libx264rgb", "rgb24", rate=1000, times=times)
    assert Video(place).list().members == [time_name(1000 * t) for t in times]
    steps = {"0.5s": [0, 700, 1500, 3333], "1s": [0, 1500, 3333], "3f": [0, 100, 1510]}
    steps |= {"0.04s": [0, 40, 90, 700, 1500, 3333], "100f": [0], "99s": [0]}
    for every, taken in steps.items():
        source = Video(place, SourceOptions(every=every))
        assert source.list().members == [time_name(1000 * t) for t in taken]


def test_rates_that_no_decimal_tells_are_rounded_to_microseconds(tmp_path):
    rate = Fraction(30000, 1001)
    place = str(tmp_path / "a.mp4")
    with av.open(place, "w") as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *SIDE, "yuv420p"
        for frame in moving(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        file.mux(stream.encode(None))
    source = Video(place)
    members = source.list().members
    assert members == ["t=0", "t=0.033367", "t=0.066733", "t=0.1001", "t=0.133467"]
    assert (source.read("t=0.1001") == source.read("t=0.100100")).all()
    with pytest.raises(ImageError, match="no frame has this time; the nearest are t=0.1001 and"):
        source.read("t=0.11")
    for wrong in ("0.1", "17", "t=x"):
        with pytest.raises(ImageError, match="names no frame: .* such as t=1.5"):
            source.read(wrong)


@pytest.mark.parametrize("every", ["", "5", "0s", "0f", "-1s", "1.5f", "s", "1e3s", "1 h", "0.0s"])
def test_steps_that_are_none_are_refused(every):
    with pytest.raises(UsageError, match="write 0.5s for one frame every half second, or 10f"):
        Video("a.mp4", SourceOptions(every=every))


def test_versions_tell_frames_files_and_decoders_apart(tmp_path, monkeypatch):
    place = write(tmp_path / "a.mkv", moving(5), "ffv1", "bgr0")
    source = Video(place)
    first = source.version("t=0")
    assert source.version("t=0.1") != first
    assert Video(place).version("t=0") == first
    monkeypatch.setattr(av, "__version__", "99")
    assert Video(place).version("t=0") != first
    monkeypatch.undo()
    write(tmp_path / "a.mkv", moving(6), "ffv1", "bgr0")
    source.close()
    assert source.version("t=0") != first
    with pytest.raises(FileNotFoundError):
        Video(str(tmp_path / "gone.mkv")).version("t=0")


# ---- pixels as they are shown


@pytest.mark.parametrize("mirrored", [{}, {"hflip": True}, {"vflip": True}], ids=str)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_as_viewers_show_them(tmp_path, degrees, mirrored):
    """The stored picture, turned counterclockwise and then mirrored, is what is shown."""
    frames = moving(3)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264rgb", rate=10, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = *SIDE, "rgb24"
        stream.set_display_rotation(degrees, **mirrored)
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        file.mux(stream.encode(None))
    shown = [np.rot90(frame, degrees // 90) for frame in frames]
    if "hflip" in mirrored:
        shown = [frame[:, ::-1] for frame in shown]
    if "vflip" in mirrored:
        shown = [frame[::-1] for frame in shown]
    source = Video(str(path))
    read = pixels_of(source, source.list().members)
    assert all(np.array_equal(a, b) for a, b in zip(read, shown, strict=True))
    with av.open(str(path)) as file:
        turned = next(file.decode(video=0)).rotation
    assert mirrored or turned % 360 == degrees


def test_ten_bits_are_rounded_to_eight(tmp_path):
    frames = moving(4)
    path = write(tmp_path / "a.mkv", frames, "ffv1", "gbrp10le")
    source = Video(path)
    read = pixels_of(source, source.list().members)
    assert all(frame.dtype == np.uint8 for frame in read)
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(read, frames, strict=True)) <= 1


# ---- files that are damaged, or hold no video


def test_of_a_file_that_is_cut_short_the_frames_before_are_read_and_the_end_is_named(tmp_path):
    frames = moving(30)
    cases = {
        "a.mkv": ("ffv1", "bgr0", {}),
        "b.avi": ("rawvideo", "bgr24", {}),
        "c.mp4": ("libx264rgb", "rgb24", {"crf": "0", "g": "5"}),
    }
    for name, (codec, pixels, options) in cases.items():
        path = tmp_path / name
        if name.endswith("mp4"):  # its table of contents first
            with av.open(str(path), "w", options={"movflags": "faststart"}) as file:
                stream = file.add_stream(codec, rate=10, options=options)
                stream.height, stream.width, stream.pix_fmt = *SIDE, pixels
                for frame in frames:
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
                file.mux(stream.encode(None))
        else:
            write(path, frames, codec, pixels, options=options)
        whole = path.read_bytes()
        assert missing_bytes(path) == 0
        path.write_bytes(whole[: len(whole) * 6 // 10])
        source = Video(str(path))
        listing = source.list()
        [(place, reason)] = listing.unreadable
        assert place == str(path)
        lost = len(whole) - len(whole) * 6 // 10
        assert reason.startswith("ends early, after t=")
        assert reason.endswith(f"the file lacks its last {lost:,} bytes")
        read = 0
        for number, member in enumerate(listing.members):
            try:
                assert (source.read(member).numpy() == frames[number]).all()
                read += 1
            except ImageError as error:
                assert "damaged" in str(error)
        assert 14 <= read <= 20, name
        assert len(listing.members) - read <= 1, name


def test_damaged_frames_fail_by_name_and_the_others_are_read(tmp_path):
    frames = moving(30)
    place = write(tmp_path / "a.mov", frames, "png", "rgb24")  # which has checksums
    with av.open(place) as file:
        spots = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    content = bytearray((tmp_path / "a.mov").read_bytes())
    for number in (7, 8, 20):
        start = spots[number][0] + spots[number][1] // 2
        content[start : start + 30] = bytes(30)
    (tmp_path / "a.mov").write_bytes(content)
    for order in range(30), range(29, -1, -1):
        source = Video(place)
        members = source.list().members
        bad = set()
        for number in order:
            try:
                assert (source.read(members[number]).numpy() == frames[number]).all()
            except ImageError as error:
                assert str(error) == "the frame is damaged and does not decode"
                bad.add(number)
        assert bad == {7, 8, 20}


def test_what_holds_no_video_is_named(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.webm").write_bytes(b"no video " * 50)
    with av.open(str(tmp_path / "sound.mkv"), "w") as file:
        sound = file.add_stream("pcm_s16le", rate=8000)
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        chunk.sample_rate = 8000
        file.mux(sound.encode(chunk))
    with av.open(str(tmp_path / "none.avi"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIDE, "yuv420p"
        file.start_encoding()
    write(tmp_path / "headless.mp4", moving(9), "libx264", "yuv420p")
    whole = (tmp_path / "headless.mp4").read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.mp4").mkdir()
    names = ["empty.mp4", "text.webm", "sound.mkv", "none.avi", "headless.mp4", "folder.mp4"]
    found = Sources().find([tmp_path / name for name in names])
    assert found.names == []
    told = {place.rpartition("/")[2]: reason for place, reason in found.unreadable}
    assert list(told) == names[:-1]
    assert "not a video, or damaged" in told["text.webm"]
    assert told["sound.mkv"] == "there is no video in it that can be decoded: only audio"
    assert told["none.avi"] == "it has no frames"
    assert "the file lacks its last" in told["headless.mp4"]
    assert all("\n" not in reason for reason in told.values())


def test_sound_beside_the_pictures_does_not_matter(tmp_path):
    frames = moving(5)
    place = write(tmp_path / "a.mkv", frames, "ffv1", "bgr0", audio=True)
    source = Video(place)
    read = pixels_of(source, source.list().members)
    assert all((a == b).all() for a, b in zip(read, frames, strict=True))


def test_without_pyav_one_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    for ask in (lambda s: s.list(), lambda s: s.read("t=0"), lambda s: s.version("t=0")):
        with pytest.raises(UsageError, match=r"videos need PyAV.*pip install 'lpipstore\[video\]'"):
            ask(Video(str(tmp_path / "a.mp4")))


def test_sources_open_videos_by_name_in_other_processes_too(tmp_path):
    frames = moving(12)
    place = write(tmp_path / "a.mkv", frames, "ffv1", "bgr0")
    sources = Sources(SourceOptions(every="5f"))
    found = sources.find([place])
    assert found.names == [f"{place}#{t}" for t in ("t=0", "t=0.5", "t=1")]
    assert sources.sequential(found.names[0])
    copy = pickle.loads(pickle.dumps(sources))
    assert (copy.read(f"{place}#t=1").numpy() == frames[10]).all()
    assert (copy.read(f"{place}#t=0.3").numpy() == frames[3]).all()  # whatever `every` says
    sources.close()
    assert (sources.read(found.names[1]).numpy() == frames[5]).all()
