// Where the token is kept: for this browser tab only, never in the address, never in what outlives the tab.
const KEY = 'model-manager.token';

export const MISSING_TOKEN = 'Paste a token: every operation needs one.';

export function readToken(): string {
  return sessionStorage.getItem(KEY) ?? '';
}

export function keepToken(token: string): void {
  if (token === '') sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, token);
}

/** What a person pastes often has blanks around it, or the scheme of the header it was copied from. */
export function cleanToken(pasted: string): string {
  return pasted.trim().replace(/^Bearer\s+/i, '');
}
