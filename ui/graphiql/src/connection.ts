// One connection to the API with one token: queries and mutations over HTTP, subscriptions over a WebSocket.
import type { GraphiQLProps } from 'graphiql';
import { type ExecutionResult, getOperationAST, GraphQLError, parse } from 'graphql';
import { type Client, createClient, type SubscribePayload } from 'graphql-ws';
import { MISSING_TOKEN } from './token';

type Fetcher = GraphiQLProps['fetcher'];
type Params = Parameters<Fetcher>[0];
interface Observer {
  next(result: ExecutionResult): void;
  complete(): void;
}

export interface Connection {
  fetcher: Fetcher;
  close(): void;
}

const PATH = '/graphql';
const FORBIDDEN = 4403;

export function connect(token: string): Connection {
  if (token === '') return { fetcher: () => Promise.resolve(failure(MISSING_TOKEN)), close: () => undefined };
  const authorization = `Bearer ${token}`;
  const socket = openSocket(authorization);
  return {
    fetcher(given) {
      const { name, isSubscription } = readOperation(given);
      const params = { ...given, operationName: name };
      return isSubscription ? subscribe(socket, params) : post(authorization, params);
    },
    close: () => void socket.dispose(),
  };
}

/** Opens with the first subscription and closes with the last. */
function openSocket(authorization: string): Client {
  return createClient({
    url: `${location.protocol === 'https:' ? 'wss:' : 'ws:'}//${location.host}${PATH}`,
    connectionParams: { authorization },
    // A refused token stays refused; everything else may be the network.
    shouldRetry: (cause) => cause instanceof CloseEvent && cause.code !== FORBIDDEN,
  });
}

async function post(authorization: string, params: Params): Promise<ExecutionResult> {
  try {
    const response = await fetch(PATH, {
      method: 'POST',
      headers: {
        accept: 'application/graphql-response+json, application/json;q=0.9',
        authorization,
        'content-type': 'application/json',
      },
      body: JSON.stringify(params),
    });
    if (!response.headers.get('content-type')?.includes('json')) {
      return failure(`The server answered ${response.status} ${response.statusText} without a GraphQL response.`);
    }
    return (await response.json()) as ExecutionResult;
  } catch (error) {
    return failure(`The server could not be asked: ${describe(error)}`);
  }
}

function subscribe(socket: Client, params: Params): ReturnType<Fetcher> {
  const observable = {
    subscribe: ({ next, complete }: Observer) => ({
      unsubscribe: socket.subscribe(params as SubscribePayload, {
        next,
        complete,
        error(error) {
          if (Array.isArray(error)) next({ errors: error as GraphQLError[] });
          else next(failure(`The subscription ended: ${describe(error)}`));
          complete();
        },
      }),
    }),
  };
  // GraphiQL's type has two more ways to call subscribe, which it never uses.
  return observable as ReturnType<Fetcher>;
}

/** Reads the text itself: what GraphiQL has parsed, and the name it gives, may be a moment older. */
function readOperation({ query, operationName }: Params): { name: string | null; isSubscription: boolean } {
  try {
    const document = parse(query);
    const operation = getOperationAST(document) ?? getOperationAST(document, operationName);
    return { name: operation?.name?.value ?? null, isSubscription: operation?.operation === 'subscription' };
  } catch {
    // The server says what is wrong with it.
    return { name: null, isSubscription: false };
  }
}

/** Has the shape of a GraphQL response, so that the response pane shows it as one. */
function failure(message: string): ExecutionResult {
  return { errors: [new GraphQLError(message)] };
}

function describe(error: unknown): string {
  if (error instanceof CloseEvent) return `the socket was closed with ${error.code} ${error.reason}`.trim();
  return error instanceof Error ? error.message : String(error);
}
