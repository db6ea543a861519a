// A reporter for vitest that writes how many tests passed, failed and were skipped, and why, into the JSON file that
// SANDBOXD_TEST_SUMMARY names. The runner prints it last, after everything is cleaned up.
import { writeFileSync } from "node:fs";

/** What is no test but fails the run: a file that doesn't load, an error outside of any test. */
function failuresOutsideTests(modules, errors) {
  const broken = modules.flatMap((module) => [
    ...module.errors(),
    ...[...module.children.allSuites()].flatMap((suite) => suite.errors()),
  ]);
  return broken.length + errors.length;
}

export default class SummaryReporter {
  onTestRunEnd(modules, errors) {
    const summary = { passed: 0, failed: failuresOutsideTests(modules, errors), skipped: [] };
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === "passed") summary.passed += 1;
        if (result.state === "failed") summary.failed += 1;
        if (result.state === "skipped" || result.state === "pending") {
          summary.skipped.push({ file: module.relativeModuleId, name: test.fullName, why: result.note });
        }
      }
    }
    writeFileSync(process.env.SANDBOXD_TEST_SUMMARY, JSON.stringify(summary));
  }
}
