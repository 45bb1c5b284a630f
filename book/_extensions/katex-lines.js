// One request a line on the standard input, one answer a line on the standard output; ends with its input.
"use strict";
const katex = require(process.argv[2]);
require("readline").createInterface({ input: process.stdin }).on("line", line => {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = { html: katex.renderToString(request.latex, { ...request.options, throwOnError: true }) };
  } catch (error) {
    answer = { error: error.message };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
