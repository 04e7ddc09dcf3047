// The page's data, small makers of elements, the theme, and the one tooltip.
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const find = (selector, inside = document) => inside.querySelector(selector);
const every = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const SVG = find("#namespace").namespaceURI;
root.classList.add("js");

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function draw(parent, name, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

function short(value) {
  const size = Math.abs(value);
  if (value === null || !Number.isFinite(value)) return "–";
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

function isDark() {
  const asked = root.dataset.theme;
  return asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const theme = find("#theme");
function nameTheme() { theme.textContent = isDark() ? "Light" : "Dark"; }
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();

const tip = find("#tip");
function showTip(x, y, ...children) {
  tip.replaceChildren(...children);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - box.width - 4))}px`;
  const below = y + 16 + box.height < innerHeight;
  tip.style.top = `${below ? y + 16 : Math.max(4, y - box.height - 10)}px`;
}
function hideTip() { tip.hidden = true; }

for (const node of every("#rows [aria-describedby]")) {
  const meaning = document.getElementById(node.getAttribute("aria-describedby"));
  if (!meaning) continue;
  const show = () => {
    const box = node.getBoundingClientRect();
    showTip(box.left, box.bottom - 8, meaning.textContent);
  };
  node.addEventListener("mouseenter", show);
  node.addEventListener("focus", show);
  node.addEventListener("mouseleave", hideTip);
  node.addEventListener("blur", hideTip);
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

for (const button of every(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
addEventListener("beforeprint", () => { for (const each of every("details.printed")) each.open = true; });
