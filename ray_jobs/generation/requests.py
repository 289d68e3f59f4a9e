"""The videos that a run is asked for, and the groups in which they are made."""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.seeding import derive
from ray_jobs.generation.system import VideoRequest
from ray_jobs.prompts import Prompt, over_time


@dataclass(frozen=True)
class Requests:
    """The videos of a run: of each prompt so many, in order, cut into groups.

    Which videos stand in a group depends on the settings alone, so that a video has the same ones
    beside it however often a run was killed.
    """

    prompts: tuple[Prompt, ...]
    videos_per_prompt: int
    group_size: int
    """Videos of a group; the last one may have fewer."""
    seed: int

    @property
    def count(self) -> int:
        """Videos in all."""
        return len(self.prompts) * self.videos_per_prompt

    @property
    def groups(self) -> int:
        """Groups in all."""
        return -(-self.count // self.group_size)

    def group(self, number: int) -> tuple[VideoRequest, ...]:
        """Return the videos of a group."""
        first = number * self.group_size
        return tuple(map(self._video, range(first, min(first + self.group_size, self.count))))

    def _video(self, number: int) -> VideoRequest:
        prompt, copy = divmod(number, self.videos_per_prompt)
        seed = derive(self.seed, "video", prompt, copy)
        return VideoRequest(f"{number:09d}", over_time(self.prompts[prompt]), seed)


def text_of(video: VideoRequest) -> str:
    """Return a video's prompts in one line."""
    return " / ".join(prompt.text for prompt in video.prompts)


def name_of(videos: Sequence[VideoRequest]) -> str:
    """Return how a group is named for people."""
    return " to ".join(dict.fromkeys((videos[0].video_id, videos[-1].video_id)))
