"""A stack as neuroglancer opens it: each channel a layer in its colour, within its display limits.

Without such a state neuroglancer shows one channel of an image, from 0 to the largest number that a pixel can hold,
which of most stacks is black.
"""

from collections.abc import Mapping
from typing import Any

JSON = dict[str, Any]
URL = "{url}"  # where the address of the image goes, which whoever looks knows
PANEL_PX = 320  # of each of the four panels on a laptop: the whole field is seen at first


def neuroglancer_state(attributes: Mapping[str, Any]) -> JSON:
    """The state for an image with these attributes (as `ngff.image_attributes` makes them), its address left open."""
    ome = attributes["ome"]
    (steps,) = (one["scale"][-3:] for one in ome["multiscales"][0]["datasets"][0]["coordinateTransformations"])
    metres = dict(zip("zyx", (1e-6 * step for step in steps), strict=True))
    plan = attributes["spheroidd"]
    field_m = max(plan["height"] * metres["y"], plan["width"] * metres["x"])
    return {
        "dimensions": {axis: [metres[axis], "m"] for axis in "xyz"},
        "crossSectionScale": field_m / min(metres.values()) / PANEL_PX,
        "projectionScale": field_m / min(metres.values()) * 1.5,
        "layers": [_layer(n, channel) for n, channel in enumerate(ome["omero"]["channels"])],
        "showAxisLines": False,
        "layout": "4panel",
    }


def _layer(number: int, channel: Mapping[str, Any]) -> JSON:
    window = channel["window"]
    shader = (
        f"#uicontrol invlerp limits(range=[{window['start']}, {window['end']}])\n"
        f'#uicontrol vec3 colour color(default="#{channel["color"]}")\n'
        "void main() {\n  emitRGB(colour * limits());\n}\n"
    )
    return {
        "type": "image",
        "name": channel["label"],
        "source": f"zarr://{URL}",
        "localDimensions": {"c'": [1, ""]},
        "localPosition": [number],
        "blend": "additive",
        "opacity": 1,
        "shader": shader,
    }
