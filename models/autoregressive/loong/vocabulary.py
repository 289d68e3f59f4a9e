"""Id space of text, video codes and special tokens (Loong, sec. 4.1: 40,202 ids)."""

from typing import Annotated, Literal

from pydantic import Field

from infra.config import Section

SPECIAL_NAMES = (
    "pad",
    "begin_of_text",
    "end_of_text",
    "begin_of_video",
    "end_of_video",
    "reserved_0",
    "reserved_1",
    "reserved_2",
    "reserved_3",
    "reserved_4",
)


class Vocabulary(Section):
    """Layout of the ids: text, then video codes, then the named specials.

    ```
    0 ........ text | text ........ text+video | text+video ... total
      text ids      |   video ids = text+code  |   SPECIAL_NAMES in order
    ```

    The paper gives the three sizes and not the layout. Video and special ids lie together at the
    end, so the rows of the output head that training needs are one slice without a copy.
    """

    text: Annotated[int, Field(ge=1)] = 32_000
    """Ids of the text tokenizer."""
    video: Annotated[int, Field(ge=1)] = 8_192
    """Entries of the video tokenizer's codebook."""
    special: Literal[10] = 10
    """Special ids; their names are `SPECIAL_NAMES`."""

    @property
    def total(self) -> int:
        """Number of ids: rows of the embedding table and of the output head."""
        return self.text + self.video + self.special

    @property
    def video_ids(self) -> slice:
        """The video ids as a slice of the vocabulary axis."""
        return slice(self.text, self.text + self.video)

    def video_id(self, code: int) -> int:
        """Id of a codebook entry.

        Args:
            code: Index in the codebook, 0 <= code < video.

        Raises:
            ValueError: If the code is outside the codebook.
        """
        if not 0 <= code < self.video:
            raise ValueError(f"code {code} is outside the codebook [0, {self.video})")
        return self.text + code

    def code(self, video_id: int) -> int:
        """Codebook entry of a video id: the inverse of `video_id`.

        Raises:
            ValueError: If the id is not one of the video ids.
        """
        if not self.text <= video_id < self.text + self.video:
            raise ValueError(
                f"id {video_id} is not a video id [{self.text}, {self.text + self.video})"
            )
        return video_id - self.text

    def special_id(self, name: str) -> int:
        """Id of a special token by its name.

        Raises:
            ValueError: If there is no special token of that name.
        """
        if name not in SPECIAL_NAMES:
            raise ValueError(f"no special token {name!r}; there are {', '.join(SPECIAL_NAMES)}")
        return self.text + self.video + SPECIAL_NAMES.index(name)

    @property
    def pad(self) -> int:
        """Fills the shorter rows of a batch; never seen by a real token, never a target."""
        return self.special_id("pad")

    @property
    def begin_of_text(self) -> int:
        """First token of every sequence."""
        return self.special_id("begin_of_text")

    @property
    def end_of_text(self) -> int:
        """Closes the prompt."""
        return self.special_id("end_of_text")

    @property
    def begin_of_video(self) -> int:
        """Opens the clip; its hidden state predicts the first video token."""
        return self.special_id("begin_of_video")

    @property
    def end_of_video(self) -> int:
        """Closes the clip."""
        return self.special_id("end_of_video")
