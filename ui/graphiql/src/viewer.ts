// Whose token it is, asked of the API once per token; what the answer looks like is left to the token bar.
import { useEffect, useState } from 'react';
import type { Connection } from './connection';

const VIEWER = 'query Viewer { viewer { name scope } }';

export type Viewer =
  | { state: 'unknown' }
  | { state: 'accepted'; name: string; scope: string }
  | { state: 'refused'; message: string };

interface Answer {
  data?: { viewer?: { name: string; scope: string } } | null;
  errors?: { message: string }[];
}

export function useViewer({ fetcher }: Connection, token: string): Viewer {
  const [viewer, setViewer] = useState<Viewer>({ state: 'unknown' });

  useEffect(() => {
    setViewer({ state: 'unknown' });
    if (token === '') return;
    let isCurrent = true;
    void Promise.resolve(fetcher({ query: VIEWER, operationName: 'Viewer' })).then((answer) => {
      if (isCurrent) setViewer(read(answer as Answer));
    });
    return () => {
      isCurrent = false;
    };
  }, [fetcher, token]);

  return viewer;
}

function read({ data, errors }: Answer): Viewer {
  if (data?.viewer) return { state: 'accepted', ...data.viewer };
  return { state: 'refused', message: errors?.[0]?.message ?? 'The server gave no reason.' };
}
