"""The parts of bgx.train, each by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bgx.errors import BadModelError, PictureError, UsageError
from bgx.model.registry import entry_from_table
from bgx.train.feed import SIZE
from support.networks import tiny_network

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from bgx.train import augment  # noqa: E402
from bgx.train.export import from_onnx, to_onnx  # noqa: E402
from bgx.train.fit import Schedule, fit  # noqa: E402
from bgx.train.losses import deep_loss, structure_loss  # noqa: E402
from bgx.train.mixtures import mix  # noqa: E402
from bgx.train.muon import orthogonalise  # noqa: E402
from bgx.train.network import MULTIPLE, Lite, fuse  # noqa: E402
from bgx.train.pairs import SIDE, Pairs, find_sources, gather, read_pair  # noqa: E402
from bgx.train.score import score_mattes  # noqa: E402


def trained_looking(seed: int = 0) -> Lite:
    """A network whose batch norms are not those of a new one."""
    torch.manual_seed(seed)
    network = Lite(normed=True)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def discs(count: int, side: int = 80) -> Pairs:
    """Red discs on noise."""
    chance = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    photos, mattes = [], []
    for _ in range(count):
        photo = chance.integers(90, 160, (3, side, side), dtype=np.uint8)
        x, y = chance.integers(side // 4, 3 * side // 4, 2)
        inside = np.hypot(rows - y, columns - x) < side / 5
        photo[:, inside] = np.array([[220], [30], [30]], np.uint8)
        photos.append(photo)
        mattes.append(inside[None].astype(np.uint8) * 255)
    return gather(
        torch.from_numpy(np.stack(photos)),
        torch.from_numpy(np.stack(mattes)),
        torch.zeros(count, dtype=torch.bool),
    )


def save(path: Path, mode: str, size: tuple[int, int], colour: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]
    return path


def half_transparent(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    image = Image.new("RGBA", size)
    image.paste((200, 10, 10, 255), (0, 0, size[0] // 2, size[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


class TestNetwork:
    def test_gives_a_matte_of_the_inputs_size(self) -> None:
        matte = trained_looking()(torch.randn(2, 3, 2 * MULTIPLE, 3 * MULTIPLE))
        assert matte.shape == (2, 1, 2 * MULTIPLE, 3 * MULTIPLE)
        assert matte.min() >= 0
        assert matte.max() <= 1

    def test_a_fused_copy_gives_the_same_and_leaves_the_original(self) -> None:
        network = trained_looking()
        picture = torch.randn(1, 3, 64, 64)
        before = network(picture)
        torch.testing.assert_close(fuse(network)(picture), before, atol=1e-5, rtol=0)
        torch.testing.assert_close(network(picture), before)

    def test_fusing_twice_changes_nothing(self) -> None:
        once = fuse(trained_looking())
        picture = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(fuse(once)(picture), once(picture))

    def test_costs_less_than_a_thousand_million_multiplications(self) -> None:
        network = fuse(trained_looking())
        counts = []
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(
                    lambda layer, _, y: counts.append(layer.weight.numel() * y[0, 0].numel())
                )
        network(torch.zeros(1, 3, 256, 256))
        assert sum(counts) < 1e9


class TestExport:
    @pytest.mark.parametrize("shape", [(1, 256, 256), (3, 64, 64), (2, 320, 320), (1, 96, 160)])
    def test_the_file_gives_what_torch_gives(self, shape: tuple[int, int, int]) -> None:
        network = trained_looking()
        count, height, width = shape
        pictures = torch.randn(count, 3, height, width)
        session = onnxruntime.InferenceSession(to_onnx(network), providers=["CPUExecutionProvider"])
        [mattes] = session.run(None, {"image": pictures.numpy()})
        np.testing.assert_allclose(mattes, network(pictures).detach().numpy(), atol=5e-3)

    def test_is_small(self) -> None:
        assert len(to_onnx(trained_looking())) < 3_000_000

    def test_the_file_says_how_it_is_fed(self) -> None:
        model = onnx.load_model_from_string(to_onnx(trained_looking()))
        [metadata] = model.metadata_props
        entry = entry_from_table("mine", json.loads(metadata.value), Path("mine.onnx"))
        assert metadata.key == "bgx"
        assert entry.input == (SIZE, SIZE)
        assert not entry.stretch

    def test_a_network_comes_back_from_its_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.onnx"
        path.write_bytes(to_onnx(trained_looking()))
        # Weights that are halves already lose nothing more.
        assert to_onnx(from_onnx(path)) == path.read_bytes()

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        path = tiny_network(tmp_path / "other.onnx")
        with pytest.raises(BadModelError, match=r"other\.onnx.*bgx train"):
            from_onnx(path)

    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.onnx"
        path.write_bytes(to_onnx(trained_looking())[:100_000])
        with pytest.raises(BadModelError, match=r"cut\.onnx"):
            from_onnx(path)


class TestPairs:
    def test_names_match_without_suffix_case_and_cut(self, tmp_path: Path) -> None:
        for name in ("A.JPG", "b.jpg", "more/c.webp"):
            save(tmp_path / "photos" / name, "RGB", (40, 30), "grey")
        for name in ("a.png", "b-cut.png", "more/C.png"):
            half_transparent(tmp_path / "cutouts" / name)
        sources, bad = find_sources(tmp_path / "photos", tmp_path / "cutouts")
        assert not bad
        assert {source.name: source.cutout.name for source in sources if source.cutout} == {
            "a": "a.png",
            "b": "b-cut.png",
            "more/c": "C.png",
        }

    def test_a_photo_alone_waits_for_the_teacher_a_cutout_alone_is_bad(
        self, tmp_path: Path
    ) -> None:
        save(tmp_path / "photos/a.jpg", "RGB", (40, 30), "grey")
        half_transparent(tmp_path / "cutouts/b.png")
        sources, [bad] = find_sources(tmp_path / "photos", tmp_path / "cutouts")
        assert [(source.name, source.cutout) for source in sources] == [("a", None)]
        assert (bad.name, bad.reason) == ("b", "cut-out without a photo")

    def test_two_files_of_one_name_are_bad(self, tmp_path: Path) -> None:
        save(tmp_path / "photos/a.jpg", "RGB", (40, 30), "grey")
        save(tmp_path / "photos/a.png", "RGB", (40, 30), "grey")
        sources, [bad] = find_sources(tmp_path / "photos", None)
        assert not sources
        assert bad.name == "a"

    def test_an_empty_folder_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="holds no picture"):
            find_sources(tmp_path, None)

    def test_a_cutout_and_its_mask_give_the_same(self, tmp_path: Path) -> None:
        photo = save(tmp_path / "a.jpg", "RGB", (40, 30), "grey")
        cutout = half_transparent(tmp_path / "a.png")
        mask = tmp_path / "mask.png"
        with Image.open(cutout) as image:
            image.getchannel("A").save(mask)
        picture, matte = read_pair(photo, cutout)
        assert picture.shape == (3, SIDE, SIDE)
        assert matte.shape == (1, SIDE, SIDE)
        np.testing.assert_array_equal(read_pair(photo, mask)[1], matte)
        assert matte[0, :, : SIDE // 2 - 8].min() > 240
        assert matte[0, :, SIDE // 2 + 8 :].max() < 15

    @pytest.mark.parametrize(
        ("mode", "size", "colour", "reason"),
        [
            ("RGBA", (40, 31), (1, 2, 3, 0), "40 x 31, its photo 40 x 30"),
            ("RGBA", (40, 30), (1, 2, 3, 0), "is empty"),
            ("RGB", (40, 30), (9, 2, 3), "no alpha"),
            ("L", (40, 30), 255, "opaque or white everywhere"),
        ],
    )
    def test_what_is_wrong_with_a_cutout_is_said(
        self, tmp_path: Path, mode: str, size: tuple[int, int], colour: object, reason: str
    ) -> None:
        photo = save(tmp_path / "a.jpg", "RGB", (40, 30), "grey")
        cutout = save(tmp_path / "cut.png", mode, size, colour)
        with pytest.raises(PictureError, match=reason):
            read_pair(photo, cutout)

    def test_a_black_mask_says_no_subject(self, tmp_path: Path) -> None:
        photo = save(tmp_path / "a.jpg", "RGB", (40, 30), "grey")
        assert read_pair(photo, save(tmp_path / "m.png", "L", (40, 30), 0))[1].max() == 0

    def test_a_teachers_grey_matte_counts_less_than_its_clear_one(self) -> None:
        photos = torch.zeros((4, 3, SIDE, SIDE), dtype=torch.uint8)
        clear = torch.zeros((1, SIDE, SIDE), dtype=torch.uint8)
        clear[:, 100:200, 100:200] = 255
        grey = clear // 2
        mattes = torch.stack([clear, grey, grey, clear * 0])
        pairs = gather(photos, mattes, torch.tensor([True, True, False, True]))
        assert pairs.weights[0] > 0.9
        assert pairs.weights[1] < 0.5
        assert pairs.weights[2] == 1
        assert 0 in pairs.subjects
        assert 1 not in pairs.subjects
        assert pairs.grounds.tolist() == [3]


class TestAugment:
    def test_a_batch_depends_on_its_seed_alone(self) -> None:
        pairs = discs(12)

        def draw(seed: int) -> list[torch.Tensor]:
            return list(
                augment.draw(pairs, torch.arange(8), 64, torch.Generator().manual_seed(seed))
            )

        for first, second in zip(draw(1), draw(1), strict=True):
            assert torch.equal(first, second)
        assert not torch.equal(draw(1)[0], draw(2)[0])

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from([32, 64, 96]))
    def test_whatever_the_seed_a_batch_is_in_range(self, seed: int, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        pictures, mattes, weights = augment.draw(discs(4), torch.arange(count) % 4, size, generator)
        assert pictures.shape == (count, 3, size, size)
        assert mattes.shape == (count, 1, size, size)
        assert weights.shape == (count,)
        for values in (pictures, mattes):
            assert values.min() >= 0
            assert values.max() <= 1

    def test_picture_and_matte_stay_together(self) -> None:
        pairs = discs(8)
        stacked = torch.cat([pairs.photos, pairs.mattes], 1).float() / 255
        cut = augment.crop(stacked, (0.6, 1.0), 64, torch.Generator().manual_seed(3))
        red = cut[:, 0] - cut[:, 1]
        assert red[cut[:, 3] > 0.95].min() > 0.5
        assert red[cut[:, 3] < 0.05].max() < 0.4

    def test_fine_quantising_changes_nothing_coarse_does(self) -> None:
        pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            augment.block_quantise(pictures, 1e-6), pictures, atol=1e-4, rtol=0
        )
        assert (augment.block_quantise(pictures, 0.3) - pictures).abs().mean() > 0.05

    def test_no_subject_casts_no_shadow(self) -> None:
        plain = augment.backdrop(torch.zeros(6, 1, 64, 64), torch.Generator().manual_seed(0))
        # A gradient is straight: every second difference is none, except where it is cut at white.
        inside = (plain < 1).all(1, keepdim=True).expand_as(plain)
        bends = plain[..., 2:] - 2 * plain[..., 1:-1] + plain[..., :-2]
        assert bends[inside[..., 2:] & inside[..., :-2]].abs().max() < 1e-5


class TestMixtures:
    def test_mixtures_depend_on_their_seed_alone(self) -> None:
        pairs, photos = discs(6), torch.arange(6)

        def make(seed: int) -> torch.Tensor:
            return mix(pairs, photos, 5, torch.Generator().manual_seed(seed))

        assert make(1).shape == (5, 3, SIDE, SIDE)
        assert torch.equal(make(1), make(1))
        assert not torch.equal(make(1), make(2))

    @pytest.mark.parametrize("count", [1, 2, 33, 64])
    def test_half_of_each_batch_shows_a_second_subject(self, count: int) -> None:
        pairs = discs(2)
        # One red disc on noise, one green ground without a subject: what is red was pasted.
        pairs.photos[1] = torch.tensor([30, 160, 30], dtype=torch.uint8).view(3, 1, 1)
        pairs.mattes[1] = 0
        pairs = replace(pairs, subjects=torch.tensor([0]), grounds=torch.tensor([1]))
        mixed = mix(pairs, torch.tensor([0, 1]), count, torch.Generator().manual_seed(0)).int()
        green = ((mixed[:, 1] - mixed[:, 0]) > 100).flatten(1).any(1)
        red = ((mixed[:, 0] - mixed[:, 1]) > 100).flatten(1).any(1)
        assert len(mixed) == count
        both = green & red
        for batch in both.split(32):
            assert not batch[-(-len(batch) // 2) :].any()
        assert both.any() or count < 3

    def test_only_the_photos_named_are_mixed(self) -> None:
        pairs = discs(4)
        pairs.photos[2:] = 255
        mixed = mix(pairs, torch.tensor([2, 3]), 8, torch.Generator().manual_seed(0))
        assert len(pairs.subjects) == 4
        assert mixed[4:].min() == 255

    def test_without_a_subject_to_paste_they_are_parts(self) -> None:
        pairs = discs(4)
        pairs.photos[:] = 70
        pairs = replace(pairs, subjects=torch.tensor([], dtype=torch.int64))
        mixed = mix(pairs, torch.arange(4), 6, torch.Generator().manual_seed(0))
        assert mixed.unique().tolist() == [70]

    def test_they_join_pairs_whose_uses_stay(self) -> None:
        pairs, mixtures = discs(3), discs(2)
        mixtures = replace(mixtures, grounds=torch.tensor([1]))
        joined = pairs.with_mixtures(mixtures)
        assert len(joined) == len(joined.mattes) == len(joined.weights) == 5
        assert torch.equal(joined.subjects, pairs.subjects)
        assert joined.grounds.tolist() == [*pairs.grounds.tolist(), 4]


class TestLosses:
    mattes = torch.zeros(2, 1, 64, 64)
    mattes[:, :, 16:48, 16:48] = 1
    weights = torch.ones(2)

    def test_right_costs_less_than_unsure_and_unsure_less_than_wrong(self) -> None:
        right = (self.mattes - 0.5) * 20
        costs = [
            float(structure_loss(logits, self.mattes, self.weights))
            for logits in (right, right * 0, -right)
        ]
        assert costs[0] < 0.01
        assert costs == sorted(costs)

    def test_an_empty_matte_answered_by_nothing_is_no_loss(self) -> None:
        empty = self.mattes * 0
        assert structure_loss(empty - 20, empty, self.weights) < 0.01

    def test_an_untrusted_picture_counts_less(self) -> None:
        logits = (self.mattes - 0.5) * 20
        logits[1] *= -1
        trusted = structure_loss(logits, self.mattes, torch.tensor([1.0, 1.0]))
        doubted = structure_loss(logits, self.mattes, torch.tensor([1.0, 0.1]))
        assert doubted < trusted

    def test_every_scale_is_asked(self) -> None:
        right = [(torch.nn.functional.avg_pool2d(self.mattes, k) - 0.5) * 20 for k in (2, 8, 16)]
        wrong = [right[0], right[1], -right[2]]
        cost = deep_loss(right, self.mattes, self.weights)
        assert cost < deep_loss(wrong, self.mattes, self.weights)


class TestScore:
    def test_the_truth_scores_best(self) -> None:
        truth = (torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
        score = score_mattes(truth, truth)
        assert score.max_f == pytest.approx(1)
        assert score.mae == 0

    def test_the_f_measure_is_the_published_one(self) -> None:
        truth = torch.zeros(1, 1, 10, 10)
        truth[..., :5, :] = 1
        guess = torch.zeros(1, 1, 10, 10)
        guess[..., :4, :8] = 1  # precision 1, recall 32/50
        recall = 0.64
        expected = 1.3 * recall / (0.3 + recall)
        assert score_mattes(guess, truth).max_f == pytest.approx(expected)
        assert score_mattes(guess, truth).mae == pytest.approx(0.18)

    def test_pictures_without_a_subject_count_for_the_error_alone(self) -> None:
        empty = torch.zeros(1, 1, 4, 4)
        assert score_mattes(empty + 0.25, empty).max_f == 0
        assert score_mattes(empty + 0.25, empty).mae == pytest.approx(0.25)


@pytest.mark.parametrize("shape", [(16, 144), (96, 864), (64, 9)])
def test_orthogonalised_matrices_turn_and_hardly_stretch(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    stretches = torch.linalg.svdvals(orthogonalise(matrix))
    assert stretches.min() > 0.5
    assert stretches.max() < 1.3


class TestSchedule:
    schedule = Schedule(steps=1000, batch=8, stages=((64, 0.5), (96, 0.3), (128, 0.2)), rate=0.01)

    def test_pictures_grow(self) -> None:
        sizes = [self.schedule.size_at(step) for step in range(1000)]
        assert [sizes.count(size) for size in (64, 96, 128)] == [500, 300, 200]
        assert sizes == sorted(sizes)

    def test_the_rate_rises_stays_and_falls_to_nearly_nothing(self) -> None:
        rates = [self.schedule.rate_at(step) for step in range(1000)]
        assert 0 < rates[0] < 0.001
        assert rates[100] == rates[500] == 0.01
        assert 0 < rates[999] < 1e-4


class StopError(Exception):
    """Stands for Ctrl-C."""


class TestFit:
    schedule = Schedule(steps=60, batch=8, stages=((32, 0.9), (64, 0.1)), rate=3e-3)

    def run(self, checkpoint: Path, *, stop: int | None = None, identity: str = "a") -> Lite:
        def progress(done: int, loss: float, average: Lite) -> None:
            if done == stop:
                raise StopError

        torch.manual_seed(0)
        return fit(
            Lite(normed=True),
            discs(10),
            self.schedule,
            device=torch.device("cpu"),
            checkpoint=checkpoint,
            identity=identity,
            progress=progress,
        )

    def test_interrupted_and_resumed_is_as_uninterrupted(self, tmp_path: Path) -> None:
        whole = self.run(tmp_path / "whole.checkpoint")
        with pytest.raises(StopError):
            self.run(tmp_path / "parts.checkpoint", stop=55)
        resumed = self.run(tmp_path / "parts.checkpoint")
        for name, weight in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], weight), name

    def test_a_run_goes_on_with_other_cores(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bgx.train.fit.count_cores", lambda: 2)
        with pytest.raises(StopError):
            self.run(tmp_path / "c", stop=55)
        monkeypatch.setattr("bgx.train.fit.count_cores", lambda: 1)
        done: list[int] = []
        fit(
            Lite(normed=True),
            discs(10),
            self.schedule,
            device=torch.device("cpu"),
            checkpoint=tmp_path / "c",
            identity="a",
            progress=lambda step, _loss, _average: done.append(step),
        )
        assert done == list(range(51, 61))

    def test_it_learns(self, tmp_path: Path) -> None:
        losses: list[float] = []
        torch.manual_seed(0)
        fit(
            Lite(normed=True),
            discs(10),
            replace(self.schedule, steps=30, stages=((32, 1.0),)),
            device=torch.device("cpu"),
            checkpoint=tmp_path / "c",
            identity="",
            progress=lambda _step, loss, _average: losses.append(loss),
        )
        assert sum(losses[-5:]) < 0.7 * sum(losses[:5])

    def test_a_checkpoint_of_another_run_is_not_taken(self, tmp_path: Path) -> None:
        with pytest.raises(StopError):
            self.run(tmp_path / "c", stop=55)
        with pytest.raises(UsageError, match="other photos or settings"):
            self.run(tmp_path / "c", identity="b")

    def test_a_damaged_checkpoint_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "c").write_bytes(b"PK\x03\x04 cut off")
        with pytest.raises(UsageError, match="damaged"):
            self.run(tmp_path / "c")


def test_importing_the_room_does_not_load_torch() -> None:
    code = "import sys, bgx.train; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
