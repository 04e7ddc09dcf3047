// Pictures of the methods at one place: hovering shows one for a moment, choosing keeps it.
const samples = find("#samples");
if (samples) {
  const panels = every(".panel", samples), inputs = every("input[name=picture]", samples);
  const show = (place) => panels.forEach((panel, i) => panel.classList.toggle("shown", i === place));
  const kept = () => inputs.findIndex((input) => input.checked);
  inputs.forEach((input, place) => {
    input.addEventListener("change", () => show(kept()));
    input.closest("label").addEventListener("mouseenter", () => show(place));
    input.closest("label").addEventListener("mouseleave", () => show(kept()));
  });
  show(kept());
}
