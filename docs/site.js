// What many pages have in common stands once, in `parts`, which docs/pages.py writes before this.
const root = new URL(".", document.currentScript.src).href;

function shared(part) {
  const script = document.currentScript;
  const inside = script.parentElement;
  script.outerHTML = parts[part].replaceAll("file:///", root);
  const topic = inside.querySelector("[data-md-component=header-topic]");
  if (topic) topic.textContent = document.title.replace(/ - acae_nb$/, "");
  for (const link of inside.querySelectorAll(".md-nav--primary a"))
    if (link.href == location.href.replace(/[?#].*/, "")) link.classList.add("md-nav__link--active");
}
