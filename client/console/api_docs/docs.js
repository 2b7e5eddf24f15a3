// Renders openapi.json as a page: operations by tag, each with its parameters, body and answers.

const METHODS = ["get", "head", "post", "put", "patch", "delete"];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Texts hold `code` now and then; everything else is plain.
function prose(text) {
  return (text ?? "").split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

function resolved(spec, schema) {
  const name = schema?.$ref?.split("/").pop();
  return name ? spec.components.schemas[name] : schema;
}

function typeOf(spec, schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map((choice) => typeOf(spec, choice)).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(spec, schema.items)}`;
  return schema.format ? `${schema.type} (${schema.format})` : schema.type ?? "";
}

// What a value may be beyond its type: bounds, and what stands for it when it is left out.
function boundsOf(schema) {
  const words = [];
  if (schema?.minimum !== undefined || schema?.maximum !== undefined) {
    words.push(`${schema.minimum ?? ""} to ${schema.maximum ?? ""}`.trim());
  }
  if (schema?.maxLength !== undefined) words.push(`at most ${schema.maxLength} characters`);
  if (schema?.maxItems !== undefined) words.push(`at most ${schema.maxItems}`);
  if (schema?.default !== undefined && schema.default !== null) words.push(`default ${JSON.stringify(schema.default)}`);
  return words.length ? `, ${words.join(", ")}` : "";
}

// The names of the objects that a schema leads to, itself first.
function objectsIn(spec, schema, found = new Set()) {
  if (!schema || typeof schema !== "object") return found;
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    if (!found.has(name)) {
      found.add(name);
      objectsIn(spec, spec.components.schemas[name], found);
    }
    return found;
  }
  for (const value of [schema.items, ...(schema.anyOf ?? []), ...Object.values(schema.properties ?? {})]) {
    objectsIn(spec, value, found);
  }
  return found;
}

function table(headings, rows) {
  const head = make("tr", {}, ...headings.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, ...[cell].flat()))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function fields(spec, name) {
  const schema = spec.components.schemas[name];
  const rows = Object.entries(schema.properties ?? {}).map(([field, about]) => [
    make("code", {}, field),
    typeOf(spec, about) + boundsOf(about),
    (schema.required ?? []).includes(field) ? "required" : "",
    prose(about.description),
  ]);
  return [make("h3", {}, name), make("p", {}, ...prose(schema.description)), table(["field", "type", "", ""], rows)];
}

function operation(spec, path, method, about) {
  const parts = [make("p", {}, ...prose(about.description))];
  if (about.parameters?.length) {
    parts.push(make("h3", {}, "Parameters"));
    parts.push(table(["name", "in", "type", "", ""], about.parameters.map((parameter) => [
      make("code", {}, parameter.name), parameter.in,
      typeOf(spec, parameter.schema) + boundsOf(parameter.schema),
      parameter.required ? "required" : "", prose(parameter.description ?? parameter.schema?.description),
    ])));
  }
  const body = about.requestBody?.content?.["application/json"]?.schema;
  if (body) {
    parts.push(make("h3", {}, "Body"));
    for (const name of objectsIn(spec, body)) parts.push(...fields(spec, name));
  }
  parts.push(make("h3", {}, "Answers"));
  parts.push(table(["status", "what", "shape"], Object.entries(about.responses).map(([status, answer]) => [
    make("code", {}, status), prose(answer.description),
    Object.entries(answer.content ?? {}).map(([kind, { schema }]) => `${typeOf(spec, schema) || kind} `),
  ])));
  const reply = about.responses["200"]?.content?.["application/json"]?.schema;
  for (const name of objectsIn(spec, reply)) parts.push(...fields(spec, name));
  const id = `${method}-${path}`;
  return make("details", { id }, make("summary", {}, make("span", { class: "method" }, method.toUpperCase()),
    make("code", {}, path), " ", make("span", { class: "about" }, about.summary ?? "")), make("div", {}, ...parts));
}

async function render() {
  const main = document.getElementById("operations");
  const answer = await fetch("/api/v1/openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  const spec = await answer.json();
  const groups = new Map();
  for (const [path, operations] of Object.entries(spec.paths)) {
    for (const method of METHODS.filter((name) => operations[name])) {
      const tag = operations[method].tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), operation(spec, path, method, operations[method])]);
    }
  }
  main.replaceChildren(...spec.info.description.split("\n\n").map((text) => make("p", {}, ...prose(text))));
  const contents = document.getElementById("contents");
  for (const [tag, items] of groups) {
    main.append(make("h2", {}, tag), ...items);
    for (const item of items) contents.append(make("a", { href: `#${item.id}` }, item.id.replace("-", " ")));
  }
  const open = () => {
    const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (wanted) {
      wanted.open = true;
      wanted.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();
}

render().catch((error) => {
  document.getElementById("operations").replaceChildren(`This page could not be made: ${error.message}`);
});
