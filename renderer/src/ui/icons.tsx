import type { ReactNode, SVGProps } from "react";

/** 16 px line icons on a 24 grid; decorative, the word is beside them or in the button's label. */
function icon(paths: ReactNode) {
  return function Icon({
    size = 16,
    ...props
  }: SVGProps<SVGSVGElement> & { readonly size?: number }): ReactNode {
    return (
      <svg
        width={size}
        height={size}
        viewBox="0 0 24 24"
        fill="none"
        stroke="currentColor"
        strokeWidth={1.75}
        strokeLinecap="round"
        strokeLinejoin="round"
        aria-hidden="true"
        focusable="false"
        {...props}
      >
        {paths}
      </svg>
    );
  };
}

export const WatchIcon = icon(<path d="M2.5 12h4l3-8 5 16 3-8h4" />);
export const UsersIcon = icon(
  <>
    <circle cx="9" cy="8" r="3.5" />
    <path d="M2.5 20c.6-3.6 3.2-5.5 6.5-5.5s5.900 1.900 6.500 5.500M16 4.900a3.500 3.500 0 0 1 0 6.300M18.500 14.900c1.700.8 2.700 2.500 3 5.100" />
  </>,
);
export const RulesIcon = icon(<path d="M4 6h9M17 6h3M4 12h3M11 12h9M4 18h9M17 18h3M15 4v4M9 10v4M15 16v4" />);
export const PlansIcon = icon(<path d="M4 5h16v5H4zM4 14h7v5H4zM15 14h5v5h-5zM7 7.500h6" />);
export const FinanceIcon = icon(
  <path d="M12 3.500v17M7 20.500h10M5 6.500h14M5 6.500l-2.800 7a3 3 0 0 0 5.600 0zM19 6.500l-2.800 7a3 3 0 0 0 5.600 0z" />,
);
export const HealthIcon = icon(
  <path d="M12 20S4 15 4 9.500A4 4 0 0 1 12 8a4 4 0 0 1 8 1.500C20 15 12 20 12 20zM8 12h2l1.500-2.500 2 4L15 12h1.500" />,
);
export const SettingsIcon = icon(
  <>
    <circle cx="12" cy="12" r="3" />
    <path d="M12 2.800v2.700M12 18.500v2.700M21.200 12h-2.700M5.500 12H2.800M18.500 5.500l-1.900 1.900M7.400 16.600l-1.900 1.900M18.500 18.500l-1.900-1.900M7.400 7.400 5.500 5.500" />
  </>,
);
export const SearchIcon = icon(
  <>
    <circle cx="10.500" cy="10.500" r="6.500" />
    <path d="m20.500 20.500-5.400-5.400" />
  </>,
);
export const CopyIcon = icon(
  <>
    <rect x="8.500" y="8.500" width="12" height="12" rx="2" />
    <path d="M15.500 8.500v-3a2 2 0 0 0-2-2h-8a2 2 0 0 0-2 2v8a2 2 0 0 0 2 2h3" />
  </>,
);
export const CheckIcon = icon(<path d="m4.500 12.500 5 5 10-11" />);
export const CloseIcon = icon(<path d="M6 6l12 12M18 6 6 18" />);
export const PauseIcon = icon(<path d="M8.500 5v14M15.500 5v14" />);
export const PlayIcon = icon(<path d="M7 4.500v15l12-7.500z" />);
export const DownloadIcon = icon(<path d="M12 4v11M7 10.500l5 5 5-5M4.500 20h15" />);
export const UploadIcon = icon(<path d="M12 16V5M7 9.500l5-5 5 5M4.500 20h15" />);
export const LinkIcon = icon(
  <path d="M10 14a4 4 0 0 0 5.700 0l3.500-3.500a4 4 0 0 0-5.700-5.700l-1.200 1.200M14 10a4 4 0 0 0-5.700 0l-3.500 3.500a4 4 0 0 0 5.700 5.700l1.200-1.200" />,
);
export const FlagIcon = icon(<path d="M5 21V4h13l-2.500 4.500L18 13H5" />);
export const BlockIcon = icon(
  <>
    <circle cx="12" cy="12" r="8.500" />
    <path d="m6 6 12 12" />
  </>,
);
export const UnblockIcon = icon(
  <>
    <circle cx="12" cy="12" r="8.500" />
    <path d="m8 12.200 2.800 2.800 5.200-5.800" />
  </>,
);
export const WarningIcon = icon(<path d="M12 4 2.800 20h18.400zM12 10v4.500M12 17.200v.1" />);
export const InfoIcon = icon(
  <>
    <circle cx="12" cy="12" r="8.500" />
    <path d="M12 11v5.500M12 7.600v.1" />
  </>,
);
export const RefreshIcon = icon(
  <path d="M20 11a8 8 0 0 0-14.300-4L3.500 9.500M3.500 4v5.500H9M4 13a8 8 0 0 0 14.300 4l2.200-2.500M20.500 20v-5.500H15" />,
);
export const SunIcon = icon(
  <>
    <circle cx="12" cy="12" r="4" />
    <path d="M12 2.500v2M12 19.500v2M21.500 12h-2M4.500 12h-2M18.700 5.300l-1.400 1.400M6.700 17.300l-1.400 1.400M18.700 18.700l-1.400-1.400M6.700 6.700 5.300 5.300" />
  </>,
);
export const MoonIcon = icon(
  <path d="M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z" />,
);
export const PlusIcon = icon(<path d="M12 5v14M5 12h14" />);
export const TrashIcon = icon(
  <path d="M4 6.500h16M9 6.500v-2.500h6v2.500M6 6.500l1 14h10l1-14M10 10.500v6M14 10.500v6" />,
);
export const TableIcon = icon(<path d="M3.500 5h17v14h-17zM3.500 10h17M3.500 14.500h17M9.500 10v9" />);
export const ChartIcon = icon(<path d="M4 20h16M6.500 16.500v-5M12 16.500v-10M17.500 16.500v-7" />);
export const ColumnsIcon = icon(<path d="M3.500 5h17v14h-17zM9.200 5v14M14.800 5v14" />);
export const ChevronDownIcon = icon(<path d="m6 9.500 6 6 6-6" />);
export const ChevronRightIcon = icon(<path d="m9.500 6 6 6-6 6" />);
export const ChevronLeftIcon = icon(<path d="m14.500 6-6 6 6 6" />);
/** Leads out of the console. */
export const OutIcon = icon(<path d="M14 4.500h5.500V10M19.500 4.500l-8.500 8.500M17 14v5.500H4.500V7H10" />);
export const ArrowUpIcon = icon(<path d="M12 19V5M6.500 10.500 12 5l5.500 5.500" />);
export const ArrowDownIcon = icon(<path d="M12 5v14M6.500 13.500 12 19l5.500-5.500" />);
export const SyncIcon = icon(
  <path d="M7 4 3.500 7.500 7 11M3.500 7.500H17M17 20l3.500-3.500L17 13M20.500 16.500H7" />,
);
export const HelpIcon = icon(
  <>
    <circle cx="12" cy="12" r="8.500" />
    <path d="M9.500 9.500a2.500 2.500 0 1 1 3.600 2.300c-.8.4-1.100.9-1.100 1.700M12 16.700v.1" />
  </>,
);
export const PlugIcon = icon(
  <path d="M9 3.500v4M15 3.500v4M6.500 7.500h11v3a5.500 5.500 0 0 1-11 0zM12 16v5" />,
);
export const FileIcon = icon(
  <path d="M6 3.500h8l4.500 4.500v12.500H6zM14 3.500V8h4.500M9 13h6M9 16.500h6" />,
);
export const UndoIcon = icon(<path d="M8.500 5 4 9.500 8.500 14M4 9.500h10a5.500 5.500 0 0 1 0 11h-3" />);
export const NoteIcon = icon(<path d="M5 4h14v11l-5 5H5zM19 15h-5v5M8.500 9h7M8.500 12.500h4" />);
