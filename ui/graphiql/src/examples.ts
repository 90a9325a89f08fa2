// The operations in the tabs of a first visit. The first only reads: pressing Run at once must change nothing.
// The test checks each against the schema; GraphiQL names a tab after its operation. The variables name the inputs
// that have a default, too: GraphiQL's editor takes `Boolean! = false` for one that must be given.

export interface Example {
  query: string;
  variables?: Record<string, unknown>;
}

const serverAndQueue: Example = {
  query: `# The server, whose token this is, the queue.
query ServerAndQueue {
  server {
    version
    startedAt
    database
  }
  viewer {
    name
    scope
  }
  queue {
    queued
    running
    failedLastDay
    oldestQueuedAt
    workers {
      id
      host
      seenAt
      runningJobs
    }
  }
}
`,
};

const planInstall: Example = {
  query: `# What an install would do, before a byte is
# downloaded. InstallWeights takes its hash.
query PlanInstall($input: InstallPlanInput!) {
  installPlan(input: $input) {
    plan {
      hash
      commit
      fileCount
      downloadBytes
      reuseBytes
      availableBytes
      fitsOnVolume
      files(first: 50) {
        nodes {
          path
          sizeBytes
          action
        }
      }
    }
    access {
      outcome
      message
      url
    }
    userErrors {
      code
      message
      path
    }
  }
}
`,
  variables: { input: { repoId: 'Qwen/Qwen2.5-0.5B-Instruct', revision: 'main', replace: false } },
};

const installWeights: Example = {
  query: `# Downloads weights to the volume. Answers at
# once with a job: take its id to WatchJob.
mutation InstallWeights($input: InstallWeightsInput!) {
  installWeights(input: $input) {
    outcome
    job {
      id
      state
      stage
    }
    weightSet {
      id
      name
      state
    }
    userErrors {
      code
      message
      path
    }
  }
}
`,
  variables: {
    input: {
      repoId: 'Qwen/Qwen2.5-0.5B-Instruct',
      revision: 'main',
      replace: false,
      pin: false,
      priority: 'NORMAL',
    },
  },
};

const watchJob: Example = {
  query: `# One job: its state now, then every change,
# until it ends.
subscription WatchJob($jobId: ID!) {
  jobProgress(jobId: $jobId) {
    id
    kind
    state
    stage
    message
    progress {
      fraction
      bytesDone
      bytesTotal
      filesDone
      filesTotal
      bytesPerSecond
      etaSeconds
    }
    error {
      code
      message
      hint
    }
  }
}
`,
  variables: { jobId: 'Job:paste-the-id-here' },
};

const allJobsLive: Example = {
  query: `# Every job that has not ended, then each
# change of any job.
subscription AllJobsLive {
  jobs {
    cursor
    matches
    job {
      id
      kind
      state
      stage
      message
      progress {
        fraction
      }
    }
  }
}
`,
};

const jobs: Example = {
  query: `# Jobs, newest first, 25 a page. The next page
# is after the endCursor of this one.
query Jobs($after: String, $filter: JobFilter) {
  jobs(first: 25, after: $after, filter: $filter) {
    nodes {
      id
      kind
      state
      stage
      message
      attempt
      createdBy
      createdAt
      endedAt
      error {
        code
        message
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
  variables: { after: null, filter: { kinds: ['INSTALL_WEIGHTS'] } },
};

const weights: Example = {
  query: `# What is on the volume, and the room left.
query Weights($after: String) {
  weightSets(first: 25, after: $after) {
    nodes {
      id
      name
      repoId
      commit
      state
      sizeBytes
      fileCount
      installedAt
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
  volume {
    capacityBytes
    freeBytes
    reservedBytes
    observedAt
  }
}
`,
  variables: { after: null },
};

export const examples: Example[] = [serverAndQueue, planInstall, installWeights, watchJob, allJobsLive, jobs, weights];

/** In the shape that GraphiQL takes. */
export const exampleTabs = examples.map(({ query, variables }) => ({
  query,
  variables: variables ? JSON.stringify(variables, null, 2) : null,
}));
