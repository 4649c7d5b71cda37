// Draws charts with plotly.js (from the installed package) in the page's own colours.
window.tunesmith = window.tunesmith || {};
