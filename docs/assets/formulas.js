// Render what pymdownx.arithmatex marked as formulas, with the KaTeX in this folder.
document.querySelectorAll(".arithmatex").forEach(element => {
  const formula = element.textContent.trim().replace(/^\\[([]/, "").replace(/\\[)\]]$/, "")
  katex.render(formula, element, { displayMode: element.tagName === "DIV", throwOnError: false })
})
