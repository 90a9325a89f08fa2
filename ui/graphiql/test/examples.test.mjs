// Every example in the tabs must be valid against the project's schema, variables included.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { buildSchema, getOperationAST, getVariableValues, parse, validate } from 'graphql';
import { runnerImport } from 'vite';

const schema = buildSchema(readFileSync(new URL('../../../schema.graphql', import.meta.url), 'utf8'));
const { examples } = (await runnerImport(new URL('../src/examples.ts', import.meta.url).pathname)).module;

const operationOf = (query) => getOperationAST(parse(query));

for (const { query, variables } of examples) {
  test(`${operationOf(query).name.value} is valid against schema.graphql`, () => {
    assert.deepEqual(validate(schema, parse(query)).map(String), []);

    const { errors = [] } = getVariableValues(schema, operationOf(query).variableDefinitions ?? [], variables ?? {});
    assert.deepEqual(errors.map(String), []);
  });
}

test('the tabs have names of their own', () => {
  const names = examples.map(({ query }) => operationOf(query).name.value);

  assert.deepEqual(names, [
    'ServerAndQueue',
    'PlanInstall',
    'InstallWeights',
    'WatchJob',
    'AllJobsLive',
    'Jobs',
    'Weights',
  ]);
});

test('the first tab only reads', () => {
  assert.equal(operationOf(examples[0].query).operation, 'query');
});
