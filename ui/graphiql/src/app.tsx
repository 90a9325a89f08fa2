// The token bar above GraphiQL, and one connection to the API for as long as the token stays the same.
import { GraphiQL } from 'graphiql';
import { useEffect, useMemo, useState } from 'react';
import { connect } from './connection';
import { exampleTabs } from './examples';
import { TokenBar } from './token-bar';
import { keepToken, readToken } from './token';
import { useViewer } from './viewer';

export function App() {
  const [token, setToken] = useState(readToken);
  const connection = useMemo(() => connect(token), [token]);
  useEffect(() => connection.close, [connection]);
  const viewer = useViewer(connection, token);

  function changeToken(next: string) {
    keepToken(next);
    setToken(next);
  }

  return (
    <>
      <TokenBar token={token} viewer={viewer} onChange={changeToken} />
      <main>
        <GraphiQL
          fetcher={connection.fetcher}
          // Null stops the introspection, which without a token could only be refused.
          schema={token === '' ? null : undefined}
          schemaDescription
          defaultTabs={exampleTabs}
          defaultEditorToolsVisibility="variables"
          // The token bar is the one place for credentials: sockets would not send these headers.
          isHeadersEditorEnabled={false}
        >
          <GraphiQL.Logo>{null}</GraphiQL.Logo>
        </GraphiQL>
      </main>
    </>
  );
}
