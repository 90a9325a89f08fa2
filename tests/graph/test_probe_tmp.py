import json, time
from tests.graph.api import RunningApi
async def test_probe(api: RunningApi):
    for q in ["{ viewer { name scope } server { database components { name state message } } }", "query A { viewer { name } } query B { viewer { name } }", "subscription { jobs { cursor } }",
      "{ viewr }", "{ jobs(fist: 1) { totalCount } }", "query($s: JobStat) { viewer { name } }", "{ jobs(filter: {states: [QUEUE]}) { totalCount } }", "{ jobs(filter: {state: [QUEUED]}) { totalCount } }", "{ viewer { nam } }", "{", "{ viewer @foo { name } }", "query($f: JobFilter) { jobs(filter: $f) { totalCount } }",
      "{ ...A } fragment A on Query { ...A }", "{ ...Missing }",
      "{ node(id: " + "["*480 + "]"*480 + ") { id } }",
      "{a"*490 + "}"*490, 
      '{ weightSet(name: "\\u0000") { id } }', '{ weightSet(name: "\\ud800") { id } }', '{ weightSets(filter: {search: "\\u0000"}) { nodes { id } } }', '{ weightSets(filter: {search: "x"}, first: 1000000000000) { nodes { id } } }',
      '{ jobs(filter: {subjectId: "\\u0000"}) { nodes { id } } }', '{ node(id: "WeightSet:\\u0000") { id } }', '{ node(id: "Foo:x") { id } }', '{ jobs(filter: {createdSince: "0001-01-01T00:00:00+10:00"}) { nodes { id } } }', '{ jobs(filter: {createdSince: 5}) { nodes { id } } }',
      '{ jobs(filter: {createdSince: "9999-12-31T23:59:59Z"}) { nodes { id } } }',
      "{ ...f0 } " + " ".join(f"fragment f{i} on Query {{ ...f{i+1} ...f{i+1} }}" for i in range(12)) + " fragment f12 on Query { viewer { name } }",
      "{ ...f0 } " + " ".join(f"fragment f{i} on Query {{ ...f{i+1} ...f{i+1} }}" for i in range(14)) + " fragment f14 on Query { viewer { name } }",
      "{ ...f0 } " + " ".join(f"fragment f{i} on Query {{ ...f{i+1} ...f{i+1} }}" for i in range(16)) + " fragment f16 on Query { viewer { name } }",
      "mutation { cancelJob(input: {jobId: \"Job:x\"}) { userErrors { code path message } } }",
      "query A { viewer { name } } query A { viewer { name } }", "{ __schema { types { fields { type { fields { type { fields { type { fields { type { fields { name } } } } } } } } } } } }",
      "fragment A on Query { viewer { name } }",
      ]:
        t = time.time()
        s, b = await api.execute(q, {"f": {"states": ["QUEUE"]}} if "$f" in q else None)
        print(f"{time.time()-t:.2f}", q[:80], s, json.dumps(b)[:400])
    s, b = await api.execute("query A { viewer { name } } query B { viewer { name } }", None, operationName="C")
    print(s, b)
