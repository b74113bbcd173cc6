"""OpenGL work outside of drawing."""

import numpy as np
from qtpy.QtGui import QOffscreenSurface, QOpenGLContext
from qtpy.QtWidgets import QApplication

from napari_medgs.plugin.anatomy.follower import follow_planes


def test_removed_layers_are_deleted_in_the_context_of_the_canvas(make_viewer, monkeypatch):
    from vispy.gloo.context import GLContext

    viewer = make_viewer(show=True)
    for _ in range(3):
        viewer.add_image(np.zeros((4, 5, 6)))
    QApplication.processEvents()
    native = viewer.window._qt_viewer.canvas.native
    current, finish = [], GLContext.finish

    def note(self):
        context = QOpenGLContext.currentContext()
        current.append(context is not None and context == native.context())
        return finish(self)

    monkeypatch.setattr(GLContext, "finish", note)
    follow_planes(viewer)
    surface, other = QOffscreenSurface(), QOpenGLContext()
    surface.create()
    assert other.create()

    def draw_something_else(event=None):  # as Qt does with the rest of the window
        assert other.makeCurrent(surface)

    viewer.layers.events.removed.connect(draw_something_else)
    viewer.layers.events.removing.connect(draw_something_else)
    viewer.layers.pop()
    viewer.layers.clear()
    assert current == [True, True]
