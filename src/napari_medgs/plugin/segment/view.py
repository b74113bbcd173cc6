"""The Segment widget's controls. They show the state and know neither the core nor the layers."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from qtpy.QtWidgets import QCheckBox, QFileDialog, QLabel, QMenu, QVBoxLayout, QWidget

from napari_medgs._util.progress import ProgressEvent
from napari_medgs.plugin.segment.brush_bar import BrushBar
from napari_medgs.plugin.segment.class_table import ClassTable
from napari_medgs.plugin.segment.form import LabelValueForm
from napari_medgs.plugin.segment.key_names import KEYS, LAYER_KEYS, PAINT_KEYS, PART_KEYS
from napari_medgs.plugin.segment.layer_kinds import is_accepted, is_mask, is_scan
from napari_medgs.plugin.segment.maps import uncertainty_bar
from napari_medgs.plugin.segment.model import JobKind, SegmentState
from napari_medgs.plugin.segment.panels import AcceptPanel, InputsPanel
from napari_medgs.plugin.segment.parts.panel import PartsPanel
from napari_medgs.plugin.segment.save_bar import SaveBar
from napari_medgs.plugin.segment.step_heads import Guide, StepHead
from napari_medgs.plugin.segment.steps import Action, NextStep, Step, next_step
from napari_medgs.plugin.widgets.base import MedGSWidget
from napari_medgs.plugin.widgets.controls import button, compact, row
from napari_medgs.plugin.widgets.elements import Section, add_row, compact_form, hint, set_primary
from napari_medgs.plugin.widgets.icons import IconButton
from napari_medgs.plugin.widgets.layers import LayerChecklist, LayerCombo
from napari_medgs.plugin.widgets.resample_bar import ResampleBar
from napari_medgs.plugin.widgets.task_panel import TaskPanel, describe

RESTORE_HINT = "The strokes are saved: Restore brings them back."
BUSY = {
    JobKind.PREPARE: "Preparing",
    JobKind.PARTS: "Finding parts",
    JobKind.PREVIEW: "Updating",
    JobKind.INCREMENTAL: "Updating",
    JobKind.FULL: "Updating",
    JobKind.SUGGEST: "Looking for the next slice",
    JobKind.MAPS: "Computing the maps",
}
LONG = (JobKind.PREPARE, JobKind.PARTS, JobKind.SUGGEST, JobKind.MAPS)


class SegmentView(QWidget):
    """All controls of the Segment widget, and how they show a :class:`SegmentState`.

    Parameters
    ----------
    owner : MedGSWidget
        Gives viewer, runner and title.
    state : SegmentState
    settings : QWidget
        The form of the solver's settings.
    values : LabelValueForm
    """

    def __init__(
        self, owner: MedGSWidget, state: SegmentState, settings: QWidget, values: LabelValueForm
    ) -> None:
        super().__init__()
        self._owner, self._state = owner, state
        self._body = QVBoxLayout(self)
        self._body.setContentsMargins(0, 0, 0, 0)
        self._body.setSpacing(5)
        self.guide = Guide()
        self._body.addWidget(self.guide)
        self.heads: dict[Step, StepHead] = {}
        self._build_input()
        self._build_classes()
        self._build_run()
        self._build_check()
        self.saving = SaveBar(owner, is_accepted)
        self._add_step(Step.SAVE)
        self._body.addWidget(self.saving)
        self._build_sections(settings, values)
        self._body.addStretch(1)
        self._follow(state)

    # The controls

    def _add_step(self, step: Step) -> None:
        self.heads[step] = StepHead(step)
        self._body.addWidget(self.heads[step])

    def _build_input(self) -> None:
        self._add_step(Step.START)
        form = compact_form()
        self._body.addLayout(form)
        self.images = LayerChecklist(self._owner, is_scan)
        tip = "What to segment. Check several contrasts to use them together."
        add_row(form, "Image", self.images, tip)
        self.align = ResampleBar(self._owner, self.images)
        form.addRow(self.align)
        self.initial = LayerCombo(self._owner, is_mask, none="no mask yet")
        tip = (
            "A mask to go on with: its classes are shown and can be edited; what you do not touch "
            "stays, but for voxels near its edges, which are decided anew. A running session "
            "goes on without it: press New."
        )
        add_row(form, "Begin with", self.initial, tip)
        self.resample = QCheckBox("bring the mask onto the image's grid")
        self.resample.setToolTip(
            "Resample a mask of another grid by the nearest label. Otherwise it is refused."
        )
        form.addRow(self.resample)
        self.initial.changed.connect(self._show_resample)
        self._show_resample()
        self.new_strokes = IconButton(
            "plus", "Add a layer to paint strokes in, with classes and colors.", "New"
        )
        self.presegment = IconButton("auto_fix", "", "Pre-segment")
        self.choose_model = IconButton("folder_open_outline", "Choose the model to pre-segment.")
        line = row(self.new_strokes, self.presegment, self.choose_model)
        line.setStretch(2, 0)
        self._body.addLayout(line)
        self.model_note = hint()
        self.model_note.setVisible(False)
        self._body.addWidget(self.model_note)
        self.restore_bar = QWidget()
        bar = QVBoxLayout(self.restore_bar)
        bar.setContentsMargins(8, 6, 8, 6)
        self.restore_note = QLabel()
        self.restore_note.setWordWrap(True)
        self.restore = button("Restore", "Open the saved strokes and go on.")
        self.discard = button("Discard", "Delete the saved strokes for good.")
        bar.addWidget(self.restore_note)
        bar.addLayout(row(self.restore, self.discard))
        self.restore_bar.setObjectName("medgs-restore")
        self.restore_bar.setStyleSheet(
            "QWidget#medgs-restore { background: rgba(224, 160, 48, 40); border-radius: 5px; }"
        )
        self.restore_bar.setVisible(False)
        self._body.addWidget(self.restore_bar)

        self._look_place = QVBoxLayout()
        self._body.addLayout(self._look_place)

    def _show_resample(self) -> None:
        self.resample.setVisible(self.initial.layer is not None)

    def add_look(self, look: QWidget) -> None:
        """Show the controls of planes and window below the image."""
        self._look_place.addWidget(look)

    def _build_classes(self) -> None:
        self._add_step(Step.PAINT)
        self.table = ClassTable()
        self._body.addWidget(self.table)
        self.add_class = compact(
            IconButton("plus", "Add a class with a color of its own.", "Add class")
        )
        self.remove_class = IconButton(
            "trash_can_outline", "Remove the class and its strokes; Undo brings both back."
        )
        self.templates = IconButton(
            "playlist_edit", "Load or save the list of classes: names, colors and codes."
        )
        menu = QMenu(self.templates)
        self.load_classes = menu.addAction("Load classes…")
        self.save_classes = menu.addAction("Save classes…")
        self.templates.setMenu(menu)
        self.undo = IconButton("undo", "Undo the last step (Ctrl+Z in the strokes or the result).")
        self.redo = IconButton("redo", "Redo the step that was undone (Ctrl+Shift+Z).")
        line = row(self.add_class, self.remove_class, self.templates, self.undo, self.redo)
        for k in range(1, 5):
            line.setStretch(k, 0)
        self._body.addLayout(line)
        self.brush = BrushBar(self._owner.viewer)
        self._body.addWidget(self.brush)
        self.complete = QCheckBox("this slice is complete")
        self.complete.setToolTip(
            "Check it when every class is painted up to its border in this slice, or when no "
            "class is in it: all that is unpainted in it is background then."
        )
        self.complete.setEnabled(False)
        self._body.addWidget(self.complete)
        self.parts = PartsPanel()
        self._body.addWidget(self.parts)

    def _build_run(self) -> None:
        self.auto = QCheckBox("automatic")
        self.auto.setChecked(True)
        self.auto.setToolTip(
            "Update the mask after every stroke. Painting is never blocked: a newer stroke stops "
            "an older update."
        )
        self.panel = TaskPanel(self._owner, "Update", "Compute the mask anew from all strokes.")
        self.panel.buttons.insertWidget(0, self.auto)
        self.panel.show_status_in(self.guide.text)
        policy = self.panel.bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # the buttons below must not jump at each stroke
        self.panel.bar.setSizePolicy(policy)
        self._body.addWidget(self.panel)

    def _build_check(self) -> None:
        self._add_step(Step.CHECK)
        self.place_warning: str | None = None  # where the image's orientation is not known
        self.result = QLabel()
        self.result.setObjectName("medgs-result")
        self.result.setWordWrap(True)
        self.result.setVisible(False)
        self.suggest = compact(
            button("Suggest", "Go to the slice where one more stroke helps most (N).")
        )
        self.uncertainty = compact(
            button("Uncertainty", "Show the estimated probability that a voxel has a wrong class.")
        )
        self.uncertainty.setCheckable(True)
        self._check_row = row(self.suggest, self.uncertainty)
        self._body.addLayout(self._check_row)
        self.only_correct = QCheckBox("only correct this mask")
        self.only_correct.setToolTip(
            "Check it once the mask is mostly right: it stays from then on, and strokes change it "
            "near them. Otherwise every stroke is learned from, and may change the mask anywhere."
        )
        self._body.addWidget(self.only_correct)
        self.color_bar = uncertainty_bar()
        self.color_bar.setToolTip("Probability that the voxel has a wrong class.")
        self.color_bar.setVisible(False)
        self.uncertainty.toggled.connect(self.color_bar.setVisible)
        self._body.addWidget(self.color_bar)
        self._body.addWidget(self.result)

    def add_check(self, made: QWidget) -> None:
        """Show another button among those that check the mask."""
        self._check_row.addWidget(compact(made), 1)

    def add_check_panel(self, made: QWidget) -> None:
        """Show what a button of :meth:`add_check` found, above the volumes."""
        self._body.insertWidget(self._body.indexOf(self.result), made)

    def _build_sections(self, settings: QWidget, values: LabelValueForm) -> None:
        inputs, accepting = InputsPanel(self._owner, values), AcceptPanel(self._owner)
        self.add_points, self.add_boxes = inputs.add_points, inputs.add_boxes
        self.negative, self.probability = inputs.negative, inputs.probability
        self.strokes, self.fields, self.load = inputs.strokes, inputs.fields, inputs.load
        self.target, self.accept = accepting.target, accepting.accept
        self.accept_one, self.replace_same = accepting.accept_one, accepting.replace_same
        keys = [f"<tr><td><b>{k}</b>&nbsp;&nbsp;</td><td>{text}</td></tr>"
                for k, text in (PAINT_KEYS | PART_KEYS | LAYER_KEYS | KEYS).items()]  # fmt: skip
        self.sections = [
            Section("Points, boxes, other inputs", inputs),
            Section("Settings", settings),
            Section("Keep classes one by one", accepting),
            Section("Shortcuts", hint("<table>" + "".join(keys) + "</table>")),
        ]
        self._parts = QVBoxLayout()
        self._parts.setSpacing(0)
        for part in self.sections:
            self._parts.addWidget(part)
        self._body.addLayout(self._parts)

    def add_section(self, section: Section, before: int = 0) -> None:
        """Show another section below the steps, before the given one."""
        self.sections.insert(before, section)
        self._parts.insertWidget(before, section)

    def section(self, title: str) -> Section:
        """Return the section of a title."""
        return next(part for part in self.sections if part.title == title)

    # What they show

    @property
    def next_step(self) -> NextStep:
        """What to do next."""
        return next_step(self._state, has_image=bool(self.images.layers))

    def show_next_step(self, *_: object) -> None:
        """Say what comes next, and let its button and heading stand out."""
        coming = self.next_step
        self._show_message(self._state.message)
        for step, head in self.heads.items():
            head.set_next(step is coming.step)
        buttons = {
            Action.NEW: self.new_strokes,
            Action.UPDATE: self.panel.button,
            Action.SUGGEST: self.suggest,
            Action.SAVE: self.saving.everything,
            Action.NEXT_CASE: self.saving.next,
        }
        for action, shown in buttons.items():
            set_primary(shown, action is coming.action)

    def _follow(self, state: SegmentState) -> None:
        events = state.events
        events.message.connect(self._show_message)
        events.job.connect(self._show_job)
        events.summary.connect(self._show_summary)
        events.volumes_ml.connect(self._show_volumes)
        # These events come with the former value, too, which Qt's slots do not take.
        events.locked.connect(lambda locked: self.table.show_locks(locked))
        events.keeps_mask.connect(lambda kept: self.only_correct.setChecked(kept))
        events.can_undo.connect(lambda can: self.undo.setEnabled(can))
        events.can_redo.connect(lambda can: self.redo.setEnabled(can))
        events.has_session.connect(self._show_session)
        for event in (
            events.auto_update, events.is_current, events.checked, events.clicking,
            events.provisional, events.fills_image, events.saved, events.has_next_case,
            events.can_undo,
        ):  # fmt: skip
            event.connect(lambda *_: self.show_next_step())
        self.images.changed.connect(self.show_next_step)
        self.undo.setEnabled(False)
        self.redo.setEnabled(False)
        self._show_session(state.has_session)
        self._show_volumes(state.volumes_ml)
        self._show_message("")

    def _show_message(self, text: str) -> None:
        """Show what is going on; when nothing is, what comes next."""
        self.guide.show_text(text or self.next_step.text)

    def _show_job(self, kind: JobKind | None) -> None:
        self.panel.cancel.setEnabled(kind is not None)
        self.panel.bar.setVisible(kind in LONG)
        self.panel.bar.setRange(0, 0)
        if kind is not None:
            self._state.message = f"{BUSY[kind]} ..."
        elif not self._state.has_session:
            self._state.message = ""
            self._show_message("")
        elif self._state.message.endswith("..."):
            self._state.message = ""

    def show_progress(self, event: ProgressEvent) -> None:
        """Show the progress of a long job."""
        if self._state.job in LONG:
            self.panel.show_progress(event)
            self._state.message = describe(event)

    def _show_summary(self, text: str) -> None:
        if text and self.place_warning is not None:
            text += f"<br><i>{escape(self.place_warning)}</i>"
        self.result.setText(text)
        self.result.setVisible(bool(text))

    def _show_volumes(self, volumes_ml: Mapping[int, float]) -> None:
        self.table.show_volumes(volumes_ml)
        saving = self.saving
        for control in (
            self.suggest, self.only_correct, self.accept, saving.everything, saving.keep
        ):  # fmt: skip
            control.setEnabled(bool(volumes_ml))
        for control in (saving.mask, saving.meshes):
            control.setEnabled(bool(volumes_ml) or saving.what.layer is not None)
        self.show_next_step()

    def _show_session(self, has_session: bool) -> None:
        for control in (self.saving.session, self.add_points, self.add_boxes):
            control.setEnabled(has_session)
        self.show_next_step()

    @property
    def save(self) -> Any:
        """The button that saves the session."""
        return self.saving.session

    # Files

    def ask_file(self, save: bool, start: str = "") -> str:
        """Ask for a session file; return an empty text when the dialog is canceled.

        Parameters
        ----------
        save : bool
        start : str
            Path to offer, or a folder to begin in.
        """
        kinds = "Sessions (*.json)"
        if save:
            return str(QFileDialog.getSaveFileName(self, "Save session", start, kinds)[0])
        return str(QFileDialog.getOpenFileName(self, "Open session", start, kinds)[0])
