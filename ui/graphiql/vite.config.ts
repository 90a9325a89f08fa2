import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// The API serves the outcome as static files at /graphiql/, with a policy of no other host and no inline script.
export default defineConfig({
  base: '/graphiql/',
  plugins: [react()],
  build: {
    // The editor is one large chunk by nature; it is loaded once and kept by the browser.
    chunkSizeWarningLimit: 4096,
    // "use no memo" in GraphiQL is for the React compiler, which is not used here.
    rolldownOptions: { checks: { moduleLevelDirective: false } },
    license: { fileName: 'licenses.md' },
  },
  worker: { format: 'es' },
});
