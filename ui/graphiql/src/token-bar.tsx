// The slim bar above the editor: a field for the token, and what has become of it.
import { type FormEvent, useRef } from 'react';
import { cleanToken, MISSING_TOKEN } from './token';
import type { Viewer } from './viewer';

interface Props {
  token: string;
  viewer: Viewer;
  onChange(token: string): void;
}

export function TokenBar({ token, viewer, onChange }: Props) {
  const field = useRef<HTMLInputElement>(null);

  function use() {
    const next = cleanToken(field.current?.value ?? '');
    if (next !== token) onChange(next);
  }

  function submit(event: FormEvent) {
    event.preventDefault();
    use();
  }

  function input({ nativeEvent }: FormEvent) {
    if (nativeEvent instanceof InputEvent && nativeEvent.inputType === 'insertFromPaste') use();
  }

  return (
    <header className="bar">
      <h1>Model Manager API</h1>
      {/* The field has no name: a form sent without our script would carry nothing in the address. */}
      <form onSubmit={submit}>
        <label htmlFor="token">Token</label>
        <input
          id="token"
          ref={field}
          type="password"
          autoComplete="off"
          spellCheck={false}
          defaultValue={token}
          aria-describedby="token-state"
          onInput={input}
          onBlur={use}
        />
      </form>
      <TokenState token={token} viewer={viewer} />
    </header>
  );
}

function TokenState({ token, viewer }: Pick<Props, 'token' | 'viewer'>) {
  const [kind, text] = describe(token, viewer);
  return (
    <p id="token-state" role="status" data-kind={kind} title={text}>
      {text}
    </p>
  );
}

function describe(token: string, viewer: Viewer): [kind: string, text: string] {
  if (token === '') return ['missing', MISSING_TOKEN];
  if (viewer.state === 'accepted') return ['accepted', `${viewer.name}, scope ${viewer.scope}`];
  if (viewer.state === 'refused') return ['refused', `This token does not work: ${viewer.message}`];
  return ['asking', 'Asking the server…'];
}
