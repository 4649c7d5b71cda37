// The table of an import: which column, or which template, becomes which field (webui/data/mapping.py).
window.tunesmith = window.tunesmith || {};

tunesmith.mapping = (() => {
  const TEMPLATE = "{}";
  let told = {}, table = null;

  const rowHtml = (field) => `<div class="map-row"><div class="settings">${
    tunesmith.form.field({
      path: `map.${field.name}`, kind: "choice", control: "select", label: field.label,
      help: field.help, options: field.options,
    })}${tunesmith.form.field({
    path: `template.${field.name}`, kind: "str", control: "text", label: field.template,
    help: field.template_help, rows: 3, placeholder: "{question}\n\n{options}",
  })}<div class="problem"></div></div><div class="samples"></div></div>`;

  const put = (place, html = "") => {
    if (place.told !== html) place.innerHTML = place.told = html;
  };

  // What is wrong with a field, and some values of its column.
  function tell(news = told) {
    told = news;
    for (const row of table?.querySelectorAll(".map-row") || []) {
      put(row.querySelector(".problem"), told[row.dataset.name]?.problem);
      put(row.querySelector(".samples"), told[row.dataset.name]?.samples);
    }
  }

  const parts = (row) => [row.querySelector("select"), row.querySelector("textarea")];
  const follow = (row) => {
    const [column, template] = parts(row);
    template.closest(".field").classList.toggle("is-hidden", column.value !== TEMPLATE);
  };

  function mount(element, props, trigger, watch) {
    let drawn = null;
    table = element;
    // Only what the server filled in is drawn anew: what is being typed stays.
    const draw = () => {
      const { asked, fields, held } = props.value;
      if (asked === drawn) return;
      drawn = asked;
      element.innerHTML = fields.map(rowHtml).join("");
      [...element.children].forEach((row, place) => {
        const name = row.dataset.name = fields[place].name, [column, template] = parts(row);
        column.value = held[name].column; // none is chosen where that is null
        template.value = held[name].template;
        follow(row);
      });
      tell();
    };
    draw();
    watch("value", draw);
    element.addEventListener("input", (event) => {
      const row = event.target.closest(".map-row"), [column, template] = parts(row);
      follow(row);
      const chosen = { column: column.selectedIndex < 0 ? null : column.value, template: template.value };
      props.value = { ...props.value, held: { ...props.value.held, [row.dataset.name]: chosen } };
      trigger("input");
    });
  }

  return { mount, tell };
})();
