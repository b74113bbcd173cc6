"""Forms made from the declared settings of a dataclass, with magicgui's typed widgets.

Range, default, choices, unit and help come from the declaration that the command line uses, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from magicgui.widgets import create_widget
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medgs._util.settings import Setting, settings_of
from napari_medgs.plugin.widgets.elements import Section, add_row, compact_form

LARGEST_INT = 2**31 - 1
LARGEST_FLOAT = 1e6
BOX_BUTTONS = 46  # pixels of a spin box beside its text, in napari's style
STEPS: dict[type, float] = {int: 1, float: 0.1}
P = TypeVar("P", bound=object)


class SettingWidget:
    """The widget of one setting.

    Parameters
    ----------
    declared : Setting
    choices : mapping, optional
        Value -> text shown for it, for a combo box. None may be among the values.
    none_text : str, optional
        Shown for None, as the lowest value of a spin box; :attr:`Setting.none` by default.
    zero_text : str, optional
        Shown in place of 0.
    step : float, optional
        Of a spin box; as declared by default.
    label : str, optional
        Name in the form; as declared by default.
    """

    def __init__(
        self,
        declared: Setting,
        *,
        choices: Mapping[Any, str] | None = None,
        none_text: str = "",
        zero_text: str = "",
        step: float | None = None,
        label: str = "",
    ) -> None:
        self.declared, self._label = declared, label
        if choices is None and declared.choices:
            choices = {choice: choice for choice in declared.choices}
        self._choices = None if choices is None else list(choices)
        self._lowest: float | None = None
        arguments = declared.widget_arguments()
        options: dict[str, Any] = arguments["options"]
        if choices is not None:
            # By position, because magicgui keeps None for "nothing chosen".
            numbered = [(text, index) for index, text in enumerate(choices.values())]
            arguments["options"] = {"tooltip": declared.help, "choices": numbered}
            arguments["widget_type"] = "ComboBox"
            arguments["value"] = self._choices.index(declared.default)  # type: ignore[union-attr]
        elif declared.kind in (int, float):
            # Integers, too: magicgui's box for large integers has no text for special values.
            arguments["widget_type"], arguments["annotation"] = "FloatSpinBox", float
            largest = LARGEST_INT if declared.kind is int else LARGEST_FLOAT
            step = options["step"] = step or declared.step or STEPS[declared.kind]
            least = options.get("min", 0)
            options["max"] = min(options.get("max", largest), largest)
            if declared.optional:
                # One step below the range stands for None.
                self._lowest = least = 0 if least <= step else least - step
            options["min"] = least
            if declared.default is None:
                arguments["value"] = self._lowest
        self.control = create_widget(**arguments)
        self.control.native.setObjectName(declared.name)
        self._dress(none_text or declared.none, zero_text, step)

    def _dress(self, none_text: str, zero_text: str, step: float | None) -> None:
        box = self.control.native
        if isinstance(box, QComboBox):
            box.setMinimumContentsLength(5)
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
        elif isinstance(box, QDoubleSpinBox):
            whole = self.declared.kind is int
            box.setDecimals(0 if whole else 2 if step is not None and step < 0.1 else 1)
            box.setGroupSeparatorShown(whole and self.declared.name != "seed")
            box.setKeyboardTracking(False)
            if self.declared.unit:
                box.setSuffix(f" {self.declared.unit}")
            if self._lowest is not None:
                box.setSpecialValueText(none_text)
            elif zero_text and box.minimum() == 0:
                box.setSpecialValueText(zero_text)
            # The viewer's style leaves too little room between its buttons.
            least = box.fontMetrics().horizontalAdvance(box.text()) + BOX_BUTTONS
            box.setStyleSheet(f"padding: 1px 2px; min-width: {least}px;")

    @property
    def label(self) -> str:
        """The name that the form shows."""
        if self._label:
            return self._label
        return self.declared.label or self.declared.name.replace("_", " ").capitalize()

    @property
    def is_number(self) -> bool:
        """Whether the widget is a spin box."""
        return self._choices is None and self.declared.kind in (int, float)

    @property
    def value(self) -> Any:
        """The chosen value."""
        value = self.control.value
        if self._choices is not None:
            return self._choices[value]
        if self._lowest is not None and value <= self._lowest:
            return None
        return int(value) if self.declared.kind is int else value

    @value.setter
    def value(self, value: Any) -> None:
        if self._choices is not None:
            value = self._choices.index(value)
        elif value is None:
            value = self._lowest
        self.control.value = value


class SettingsForm(QWidget, Generic[P]):
    """A form for some of the settings of a frozen dataclass.

    Parameters
    ----------
    defaults : dataclass instance
        Gives the settings that the form does not show, too.
    names : iterable of str
        Settings to show, in order.
    advanced : iterable of str
        Settings to show in a section that is closed at first.
    options : mapping of str to dict, optional
        Arguments of :class:`SettingWidget` by setting.
    """

    changed = Signal()
    advanced_opened = Signal()

    def __init__(
        self,
        defaults: P,
        names: Iterable[str],
        advanced: Iterable[str] = (),
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.defaults = defaults
        self._options = options or {}
        self._loading = False
        self._declared = settings_of(type(defaults))  # type: ignore[arg-type]
        self.settings: dict[str, SettingWidget] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        form = compact_form()
        layout.addLayout(form)
        self._add(form, names)
        self.advanced: Section | None = None
        more = list(advanced)
        if more:
            inner = QWidget()
            inner.setLayout(compact_form())
            self._add(inner.layout(), more)
            self.advanced = Section("Advanced", inner)
            self.advanced.opened.connect(self.advanced_opened.emit)
            layout.addWidget(self.advanced)
        self.reset = QPushButton("Defaults")
        self.reset.setToolTip("Set all of these back to their defaults.")
        self.reset.clicked.connect(lambda *_: self.load_defaults())
        layout.addWidget(self.reset, 0, Qt.AlignmentFlag.AlignLeft)
        self.load(defaults)

    def _add(self, form: QFormLayout, names: Iterable[str]) -> None:
        for name in names:
            made = SettingWidget(self._declared[name], **self._options.get(name, {}))
            self.settings[name] = made
            native = made.control.native
            if self._declared[name].kind is bool and not isinstance(native, QComboBox):
                native.setText(made.label)
                native.setToolTip(self._declared[name].help)
                form.addRow(native)
            else:
                add_row(form, made.label, native, self._declared[name].help)
            made.control.changed.connect(self._on_changed)

    def _on_changed(self, value: Any = None) -> None:
        if not self._loading:
            self.changed.emit()

    def params(self) -> P:
        """Return the settings.

        Raises
        ------
        ParameterError
            When they contradict each other.
        """
        values = {name: made.value for name, made in self.settings.items()}
        return replace(self.defaults, **values)  # type: ignore[type-var]

    def set_value(self, name: str, value: Any) -> None:
        """Choose a setting, as a user would."""
        self.settings[name].value = value

    def load(self, params: P) -> None:
        """Show settings; :attr:`changed` is not emitted."""
        self._loading = True
        try:
            for name, made in self.settings.items():
                made.value = getattr(params, name)
        finally:
            self._loading = False

    def load_defaults(self) -> None:
        """Set everything that is shown back, as a user would."""
        self.load(self.defaults)
        self.changed.emit()

    def disable_choices(self, name: str, reasons: Mapping[str, str]) -> None:
        """Gray out choices of a combo box.

        Parameters
        ----------
        name : str
            The setting.
        reasons : mapping of str to str
            Tooltip of every choice that cannot be used.
        """
        box = self.settings[name].control.native
        for index in range(box.count()):
            if box.itemText(index) in reasons:
                item = box.model().item(index)
                item.setEnabled(False)
                box.setItemData(index, reasons[box.itemText(index)], Qt.ItemDataRole.ToolTipRole)
