"""A browser that draws slowly, as beside other work: what Gradio puts off to the next frame comes
half a second later, and whoever is quicker meets it."""

LATE_FRAMES = """(() => {
  const soon = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (draw) => soon(() => setTimeout(() => soon(draw), 500));
})()"""
